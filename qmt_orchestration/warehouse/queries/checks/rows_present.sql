-- Every symbol that trades this day has bars. Expected are the listed, not suspended instruments of the day, less those that the
-- ticks show without a trade so far (they have no bar, rightly); where no instrument list is known, the symbols whose ticks show a
-- trade. Before the day's first bar of {minutes} trading minutes (0: the daily one) is due, nothing is expected. Of the ticks only those
-- of symbols without a bar are read.
-- measure: share of the expected symbols without a bar (1 when there is no bar at all)
WITH
  (SELECT min(label) FROM trading_windows(day = {day:Date}, minutes = if({minutes:UInt16} = 0, 240, {minutes:UInt16}))) AS first_bar,
  {last:DateTime('Asia/Shanghai')} >= first_bar AS due,
  (SELECT count() FROM instruments WHERE day = {day:Date}) AS listed_today,
  have AS (
    SELECT DISTINCT symbol FROM {table:Identifier}
    WHERE frame >= toDateTime({day:Date}, 'Asia/Shanghai') AND frame < toDateTime({day:Date} + 1, 'Asia/Shanghai')
  ),
  listed AS (SELECT symbol FROM instruments WHERE day = {day:Date} AND listed AND NOT suspended),
  symbols AS (
    SELECT symbol, max(l) AS is_listed, max(b) AS has_bar, max(k) AS has_ticks, max(t) AS has_traded FROM (
      SELECT symbol, 1 AS l, 0 AS b, 0 AS k, 0 AS t FROM listed
      UNION ALL SELECT symbol, 0, 1, 0, 0 FROM have
      UNION ALL SELECT symbol, 0, 0, 1, max(traded AND time < {last:DateTime('Asia/Shanghai')}) FROM ticks
      WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND symbol NOT IN (SELECT symbol FROM have)
        AND (listed_today = 0 OR symbol IN (SELECT symbol FROM listed WHERE symbol NOT IN (SELECT symbol FROM have)))
      GROUP BY symbol
    ) GROUP BY symbol
  ),
  if(listed_today = 0, has_bar OR has_traded, is_listed AND (has_bar OR has_traded OR NOT has_ticks)) AS is_wanted
SELECT
  multiIf(NOT due, 0., sum(has_bar) = 0, 1., countIf(is_wanted AND NOT has_bar) / greatest(countIf(is_wanted), 1)) AS measure,
  if(due, concat(toString(countIf(is_wanted)), ' symbols'), concat('nothing before ', formatDateTime(first_bar, '%H:%i', 'Asia/Shanghai'))) AS expected,
  concat(toString(sum(has_bar)), ' symbols', if(due, concat(', ', toString(countIf(is_wanted AND NOT has_bar)), ' missing'), '')) AS found,
  if(due, toJSONString(arrayMap(x -> map('symbol', toString(x)), arraySlice(arraySort(groupArrayIf(symbol, is_wanted AND NOT has_bar)), 1, 20))), '[]') AS worst
FROM symbols
SETTINGS final = 0
