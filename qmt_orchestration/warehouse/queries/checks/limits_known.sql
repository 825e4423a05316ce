-- Every listed, not suspended instrument has a previous close and price limits, which the checks of bars rely on. (A newly
-- listed share has no limit in its first days: such are few.)
-- measure: share without
WITH i AS (
  SELECT symbol, pre_close, up_stop, down_stop, pre_close > 0 AND up_stop > 0 AND down_stop > 0 AS known
  FROM instruments WHERE day = {day:Date} AND listed AND NOT suspended
)
SELECT
  if(count() = 0, 1., countIf(NOT known) / count()) AS measure,
  concat('limits of ', toString(count()), ' instruments') AS expected,
  concat(toString(countIf(NOT known)), ' without') AS found,
  toJSONString(groupArrayIf(20)(map('symbol', toString(symbol), 'pre_close', toString(pre_close), 'up_stop', toString(up_stop),
    'down_stop', toString(down_stop)), NOT known)) AS worst
FROM i
