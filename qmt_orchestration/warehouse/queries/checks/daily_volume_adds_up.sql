-- The minutes of a day add up to the day's own volume and amount (taken from its last tick, not from the minutes), and reach
-- its high and low. After-hours trading has its own columns and is no part of the sum; QMT's daily volume and amount hold it on the
-- boards that have it, so a row that is QMT's daily bar may be larger there.
-- A day that is not over is not judged: its daily row holds the minute that is still forming.
-- measure: symbols that differ
WITH
  {last:DateTime('Asia/Shanghai')} >= (SELECT max(frame) FROM trading_minutes(day = {day:Date})) AS over,
  minute AS (
    SELECT symbol, sum(vol) AS vol, sum(amount) AS amount, max(high) AS high, min(low) AS low
    FROM bars_1m WHERE toDate(frame) = {day:Date} GROUP BY symbol
  ),
  daily AS (
    SELECT symbol, vol, amount, high, low,
           source = 'history' AND (right(symbol, 2), left(symbol, 3)) IN (SELECT market, code FROM trading_codes WHERE late <= {day:Date}) AS more
    FROM bars_1d WHERE toDate(frame) = {day:Date} AND NOT suspended
  ),
  differing AS (
    SELECT symbol, m.vol AS minutes_vol, d.vol AS vol, m.amount AS minutes_amount, d.amount AS amount,
           m.high AS minutes_high, d.high AS high, m.low AS minutes_low, d.low AS low
    FROM minute AS m FULL OUTER JOIN daily AS d USING (symbol)
    WHERE over AND ((m.vol != d.vol AND NOT (more AND d.vol > m.vol))
       OR (abs(m.amount - d.amount) > 0.01 + 1e-9 * abs(d.amount) AND NOT (more AND d.amount > m.amount))
       OR (d.vol > 0 AND (abs(m.high - d.high) > 1e-6 OR abs(m.low - d.low) > 1e-6)))
  )
SELECT
  toFloat64(count()) AS measure,
  '1m volume adds up to the day''s' AS expected,
  if(over, concat(toString(count()), ' symbols differ'), 'the day is not over') AS found,
  toJSONString(groupArray(20)(map('symbol', toString(symbol), 'vol', toString(vol), 'minutes_vol', toString(minutes_vol),
    'amount', toString(amount), 'minutes_amount', toString(minutes_amount), 'high', toString(high),
    'minutes_high', toString(minutes_high), 'low', toString(low), 'minutes_low', toString(minutes_low)))) AS worst
FROM differing
