-- Every symbol that is listed and not suspended sent ticks this day. Where no instrument list is known, any ticks at all. A day
-- before the first stored tick whose bars came from QMT's history cannot have ticks: nothing is expected then.
-- measure: share of the expected symbols that are silent (1 when there is no tick at all)
WITH
  have AS (
    SELECT DISTINCT symbol FROM ticks
    WHERE time >= toDateTime({day:Date}, 'Asia/Shanghai') AND time < toDateTime({day:Date} + 1, 'Asia/Shanghai')
  ),
  wanted AS (SELECT symbol FROM instruments WHERE day = {day:Date} AND listed AND NOT suspended),
  missing AS (SELECT symbol FROM wanted WHERE symbol NOT IN (SELECT symbol FROM have)),
  (SELECT count() FROM ticks WHERE time < toDateTime({day:Date} + 1, 'Asia/Shanghai')) = 0
    AND (SELECT count() FROM qmt_bars WHERE period = '1m' AND toDate(frame) = {day:Date}) > 0 AS of_history
SELECT
  multiIf(of_history, 0., (SELECT count() FROM have) = 0, 1., (SELECT count() FROM missing) / greatest((SELECT count() FROM wanted), 1)) AS measure,
  multiIf(of_history, 'no ticks: the day was made from QMT''s bars', (SELECT count() FROM wanted) = 0,
    'ticks (no instrument list of the day)', concat('ticks of ', toString((SELECT count() FROM wanted)), ' symbols')) AS expected,
  concat(toString((SELECT count() FROM have)), ' symbols, ', toString((SELECT count() FROM missing)), ' silent') AS found,
  if(of_history, '[]', (SELECT toJSONString(groupArray(20)(map('symbol', toString(symbol)))) FROM (SELECT symbol FROM missing ORDER BY symbol))) AS worst
