-- No tick is stored twice: as stored (final=0), (symbol, time, volume, pvolume, amount) is a key. Copies that the engine has
-- not merged yet count too; readers never see them. A withdrawal is published with the tick's own key: it is no copy.
-- measure: share of rows too many
WITH k AS (
  SELECT symbol, time, volume, pvolume, amount, countIf(NOT withdrawn) AS copies FROM ticks
  WHERE time >= toDateTime({day:Date}, 'Asia/Shanghai') AND time < toDateTime({day:Date} + 1, 'Asia/Shanghai')
  GROUP BY symbol, time, volume, pvolume, amount HAVING copies > 0
)
SELECT
  if(count() = 0, 0., (sum(copies) - count()) / sum(copies)) AS measure,
  'each tick once' AS expected,
  concat(toString(sum(copies)), ' rows, ', toString(sum(copies) - count()), ' too many') AS found,
  toJSONString(groupArrayIf(20)(map('symbol', toString(symbol), 'time', toString(time), 'copies', toString(copies)), copies > 1)) AS worst
FROM k
SETTINGS final = 0
