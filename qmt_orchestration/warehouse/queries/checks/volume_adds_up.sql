-- Each bar of {table} is the sum and the extremes of the one-minute bars inside it. A window's label is its end; the
-- 09:30 row (the opening call) belongs to the first window of the day, and the lunch break does not count.
-- measure: bars that differ (volume by any share, amount by more than a fen, a price at all), or are missing on one side
WITH
  {minutes:UInt16} AS n,
  minute AS (
    SELECT symbol, label, sum(b.vol) AS vol, sum(b.amount) AS amount, max(b.high) AS high, min(b.low) AS low
    FROM (
      SELECT *, greatest(toHour(frame) * 60 + toMinute(frame) - if(toHour(frame) < 12, 570, 660), 1) AS i,
             least(intDiv(i + n - 1, n) * n, 240) AS end_i,
             toDateTime({day:Date}, 'Asia/Shanghai') + (end_i + if(end_i <= 120, 570, 660)) * 60 AS label
      FROM bars_1m WHERE toDate(frame) = {day:Date} AND frame <= {last:DateTime('Asia/Shanghai')}
    ) AS b
    GROUP BY symbol, label
    HAVING label >= {first:DateTime('Asia/Shanghai')} AND label <= {last:DateTime('Asia/Shanghai')}
  ),
  wide AS (
    SELECT symbol, frame AS label, vol, amount, high, low
    FROM {table:Identifier}
    WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
  ),
  differing AS (
    SELECT symbol, label, m.vol AS minutes_vol, w.vol AS vol, m.amount AS minutes_amount, w.amount AS amount,
           m.high AS minutes_high, w.high AS high, m.low AS minutes_low, w.low AS low
    FROM minute AS m FULL OUTER JOIN wide AS w USING (symbol, label)
    WHERE m.vol != w.vol OR abs(m.amount - w.amount) > 0.01 + 1e-9 * abs(w.amount)
       OR abs(m.high - w.high) > 1e-6 OR abs(m.low - w.low) > 1e-6
  )
SELECT
  toFloat64(count()) AS measure,
  'every bar the sum of its minutes' AS expected,
  concat(toString(count()), ' bars differ') AS found,
  toJSONString(groupArray(20)(map('symbol', toString(symbol), 'frame', toString(label), 'vol', toString(vol),
    'minutes_vol', toString(minutes_vol), 'amount', toString(amount), 'minutes_amount', toString(minutes_amount),
    'high', toString(high), 'low', toString(low)))) AS worst
FROM differing
