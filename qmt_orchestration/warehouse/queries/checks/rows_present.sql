-- Every symbol that trades this day has bars. Expected are the listed, not suspended instruments of the day, less those that the
-- ticks show without a trade so far or as suspended (they have no bar, rightly); where no instrument list is known, the symbols
-- whose ticks show a trade. Before the day's first bar of {minutes} trading minutes (0: the daily one) is due, nothing is expected.
-- measure: share of the expected symbols without a bar (1 when there is no bar at all)
WITH
  (SELECT min(label) FROM trading_windows(day = {day:Date}, minutes = if({minutes:UInt16} = 0, 240, {minutes:UInt16}))) AS first_bar,
  {last:DateTime('Asia/Shanghai')} >= first_bar AS due,
  have AS (
    SELECT DISTINCT symbol FROM {table:Identifier}
    WHERE frame >= toDateTime({day:Date}, 'Asia/Shanghai') AND frame < toDateTime({day:Date} + 1, 'Asia/Shanghai')
  ),
  listed AS (SELECT symbol FROM instruments WHERE day = {day:Date} AND listed AND NOT suspended),
  (SELECT count() FROM instruments WHERE day = {day:Date}) AS listed_today,
  ticked AS (
    SELECT symbol, max(traded AND time < {last:DateTime('Asia/Shanghai')}) AS has_traded FROM ticks
    WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date})
      AND (listed_today = 0 OR symbol IN (SELECT symbol FROM listed WHERE symbol NOT IN (SELECT symbol FROM have))) GROUP BY symbol
  ),
  wanted AS (
    SELECT symbol FROM listed WHERE symbol NOT IN (SELECT symbol FROM ticked WHERE NOT has_traded)
    UNION DISTINCT
    SELECT symbol FROM ticked WHERE has_traded AND listed_today = 0
  ),
  missing AS (SELECT symbol FROM wanted WHERE symbol NOT IN (SELECT symbol FROM have))
SELECT
  multiIf(NOT due, 0., (SELECT count() FROM have) = 0, 1., (SELECT count() FROM missing) / greatest((SELECT count() FROM wanted), 1)) AS measure,
  if(due, concat(toString((SELECT count() FROM wanted)), ' symbols'), concat('nothing before ', formatDateTime(first_bar, '%H:%i', 'Asia/Shanghai'))) AS expected,
  concat(toString((SELECT count() FROM have)), ' symbols', if(due, concat(', ', toString((SELECT count() FROM missing)), ' missing'), '')) AS found,
  if(due, (SELECT toJSONString(groupArray(20)(map('symbol', toString(symbol)))) FROM (SELECT symbol FROM missing ORDER BY symbol)), '[]') AS worst
SETTINGS final = 0
