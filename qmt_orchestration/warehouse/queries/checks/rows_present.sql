-- Every symbol that trades this day has bars up to the window's end. Expected are the listed, not suspended instruments of the
-- day; where no instrument list is known, the symbols whose ticks show a trade.
-- measure: share of the expected symbols without a bar (1 when there is no bar at all)
WITH
  have AS (
    SELECT DISTINCT symbol FROM {table:Identifier}
    WHERE frame >= toDateTime({day:Date}, 'Asia/Shanghai') AND frame <= {last:DateTime('Asia/Shanghai')}
  ),
  wanted AS (
    SELECT symbol FROM instruments WHERE day = {day:Date} AND listed AND NOT suspended
    UNION DISTINCT
    SELECT DISTINCT symbol FROM ticks
    WHERE time >= toDateTime({day:Date}, 'Asia/Shanghai') AND time < toDateTime({day:Date} + 1, 'Asia/Shanghai')
      AND pvolume > 0 AND (SELECT count() FROM instruments WHERE day = {day:Date}) = 0
  ),
  missing AS (SELECT symbol FROM wanted WHERE symbol NOT IN (SELECT symbol FROM have))
SELECT
  if((SELECT count() FROM have) = 0, 1., (SELECT count() FROM missing) / greatest((SELECT count() FROM wanted), 1)) AS measure,
  concat(toString((SELECT count() FROM wanted)), ' symbols') AS expected,
  concat(toString((SELECT count() FROM have)), ' symbols, ', toString((SELECT count() FROM missing)), ' missing') AS found,
  (SELECT toJSONString(groupArray(20)(map('symbol', toString(symbol)))) FROM (SELECT symbol FROM missing ORDER BY symbol)) AS worst
