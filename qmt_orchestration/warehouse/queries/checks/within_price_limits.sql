-- No bar lies outside the day's price limits, as the instrument list of the day gives them (0 = no limit that day).
-- measure: bars outside
WITH outside AS (
  SELECT b.symbol AS symbol, b.frame AS frame, b.high AS high, b.low AS low, i.up_stop AS up_stop, i.down_stop AS down_stop
  FROM bars_1m AS b
  INNER JOIN (SELECT symbol, up_stop, down_stop FROM instruments WHERE day = {day:Date}) AS i ON b.symbol = i.symbol
  WHERE b.frame >= {first:DateTime('Asia/Shanghai')} AND b.frame <= {last:DateTime('Asia/Shanghai')}
    AND ((i.up_stop > 0 AND b.high > i.up_stop + 0.0005) OR (i.down_stop > 0 AND b.low < i.down_stop - 0.0005))
)
SELECT
  toFloat64(count()) AS measure,
  'every bar inside the limits' AS expected,
  concat(toString(count()), ' bars outside, limits known for ',
         toString((SELECT countIf(up_stop > 0) FROM instruments WHERE day = {day:Date})), ' symbols') AS found,
  toJSONString(groupArray(20)(map('symbol', toString(symbol), 'frame', toString(frame), 'high', toString(round(high, 4)),
    'low', toString(round(low, 4)), 'up_stop', toString(up_stop), 'down_stop', toString(down_stop)))) AS worst
FROM outside
