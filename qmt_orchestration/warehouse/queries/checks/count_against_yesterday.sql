-- The number of listed instruments is about that of the last earlier day with a list (new listings are a few a day).
-- measure: share of change; 1 when the day has none
WITH
  (SELECT max(day) FROM instruments WHERE day < {day:Date}) AS before,
  today AS (SELECT symbol FROM instruments WHERE day = {day:Date} AND listed),
  earlier AS (SELECT symbol FROM instruments WHERE day = before AND listed),
  changed AS (
    SELECT symbol, 'new' AS change FROM today WHERE symbol NOT IN (SELECT symbol FROM earlier)
    UNION ALL SELECT symbol, 'gone' FROM earlier WHERE symbol NOT IN (SELECT symbol FROM today)
  )
SELECT
  multiIf((SELECT count() FROM today) = 0, 1., (SELECT count() FROM earlier) = 0, 0.,
          abs(toInt64((SELECT count() FROM today)) - toInt64((SELECT count() FROM earlier))) / (SELECT count() FROM earlier)) AS measure,
  if((SELECT count() FROM earlier) = 0, 'instruments', concat('about ', toString((SELECT count() FROM earlier)), ' as on ', toString(before))) AS expected,
  toString((SELECT count() FROM today)) AS found,
  if((SELECT count() FROM earlier) = 0, '[]',
     (SELECT toJSONString(groupArray(20)(map('symbol', toString(symbol), 'change', change))) FROM changed)) AS worst
