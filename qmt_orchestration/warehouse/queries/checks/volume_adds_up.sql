-- Each bar of {table} is the sum and the extremes of the one-minute bars inside it.
-- measure: bars that differ (volume by any share, amount by more than a fen, a price at all), or are missing on one side
WITH
  minute AS (
    SELECT symbol, label, sum(b.vol) AS vol, sum(b.amount) AS amount, max(b.high) AS high, min(b.low) AS low
    FROM bars_1m AS b INNER JOIN trading_windows(day = {day:Date}, minutes = {minutes:UInt16}) AS w ON b.frame = w.frame
    WHERE toYYYYMMDD(b.frame) = toYYYYMMDD({day:Date}) AND b.frame <= {last:DateTime('Asia/Shanghai')}
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
