-- Every symbol that trades this day has bars. Expected are the listed, not suspended instruments of the day, less those that the
-- ticks show without a trade so far or as suspended (they have no bar, rightly); where no instrument list is known, the symbols
-- whose ticks show a trade. Before the day's first bar of {minutes} trading minutes (0: the daily one) is due, nothing is expected.
-- measure: share of the expected symbols without a bar (1 when there is no bar at all)
WITH
  toDateTime({day:Date}, 'Asia/Shanghai') + 60 * multiIf({minutes:UInt16} = 0, 900, {minutes:UInt16} <= 120, 570 + {minutes:UInt16}, 660 + {minutes:UInt16}) AS first_bar,
  {last:DateTime('Asia/Shanghai')} >= first_bar AS due,
  have AS (
    SELECT DISTINCT symbol FROM {table:Identifier}
    WHERE frame >= toDateTime({day:Date}, 'Asia/Shanghai') AND frame < toDateTime({day:Date} + 1, 'Asia/Shanghai')
  ),
  ticked AS (
    SELECT symbol, maxIf(cum_volume, frame <= {last:DateTime('Asia/Shanghai')}) AS traded FROM bar_states_1m
    WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) GROUP BY symbol
  ),
  (SELECT count() FROM instruments WHERE day = {day:Date}) AS listed_today,
  wanted AS (
    SELECT symbol FROM instruments WHERE day = {day:Date} AND listed AND NOT suspended
      AND symbol NOT IN (SELECT symbol FROM ticked WHERE traded = 0)
    UNION DISTINCT
    SELECT symbol FROM ticked WHERE traded > 0 AND listed_today = 0
  ),
  missing AS (SELECT symbol FROM wanted WHERE symbol NOT IN (SELECT symbol FROM have))
SELECT
  multiIf(NOT due, 0., (SELECT count() FROM have) = 0, 1., (SELECT count() FROM missing) / greatest((SELECT count() FROM wanted), 1)) AS measure,
  if(due, concat(toString((SELECT count() FROM wanted)), ' symbols'), concat('nothing before ', formatDateTime(first_bar, '%H:%i', 'Asia/Shanghai'))) AS expected,
  concat(toString((SELECT count() FROM have)), ' symbols', if(due, concat(', ', toString((SELECT count() FROM missing)), ' missing'), '')) AS found,
  if(due, (SELECT toJSONString(groupArray(20)(map('symbol', toString(symbol)))) FROM (SELECT symbol FROM missing ORDER BY symbol)), '[]') AS worst
