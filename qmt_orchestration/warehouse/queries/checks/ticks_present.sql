-- Every symbol that is listed and not suspended sent ticks this day. Where no instrument list is known, any ticks at all.
-- measure: share of the expected symbols that are silent (1 when there is no tick at all)
WITH
  have AS (
    SELECT DISTINCT symbol FROM ticks
    WHERE time >= toDateTime({day:Date}, 'Asia/Shanghai') AND time < toDateTime({day:Date} + 1, 'Asia/Shanghai')
  ),
  wanted AS (SELECT symbol FROM instruments WHERE day = {day:Date} AND listed AND NOT suspended),
  missing AS (SELECT symbol FROM wanted WHERE symbol NOT IN (SELECT symbol FROM have))
SELECT
  if((SELECT count() FROM have) = 0, 1., (SELECT count() FROM missing) / greatest((SELECT count() FROM wanted), 1)) AS measure,
  if((SELECT count() FROM wanted) = 0, 'ticks (no instrument list of the day)', concat('ticks of ', toString((SELECT count() FROM wanted)), ' symbols')) AS expected,
  concat(toString((SELECT count() FROM have)), ' symbols, ', toString((SELECT count() FROM missing)), ' silent') AS found,
  (SELECT toJSONString(groupArray(20)(map('symbol', toString(symbol)))) FROM (SELECT symbol FROM missing ORDER BY symbol)) AS worst
