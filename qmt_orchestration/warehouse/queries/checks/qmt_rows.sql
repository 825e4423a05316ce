-- Minutes with trades in QMT's own bars that our ticks did not give: those missing still, and those already filled from QMT on a
-- day that has live bars (the repair does not hide the gap).
-- measure: share of QMT's minutes with trades (1 when QMT gave none)
WITH
  q AS (SELECT symbol, frame FROM qmt_bars_1m WHERE toDate(frame) = {day:Date} AND vol > 0),
  b AS (SELECT symbol, frame, source FROM bars_1m WHERE toDate(frame) = {day:Date}),
  (SELECT countIf(source = 'live') > 0 FROM b) AS has_live,
  gaps AS (
    SELECT q.symbol AS symbol, countIf(b.source IS NULL) AS missing, countIf(b.source = 'history' AND has_live) AS filled,
           minIf(q.frame, b.source IS NULL OR b.source = 'history') AS first_gap, count() AS wanted
    FROM q LEFT JOIN (SELECT symbol, frame, toNullable(toString(source)) AS source FROM b) AS b
      ON q.symbol = b.symbol AND q.frame = b.frame
    GROUP BY symbol
  )
SELECT
  if(sum(wanted) = 0, 1., sum(missing + filled) / sum(wanted)) AS measure,
  concat(toString(sum(wanted)), ' minutes with trades') AS expected,
  concat(toString(sum(missing)), ' missing, ', toString(sum(filled)), ' filled from QMT') AS found,
  toJSONString(arrayMap(x -> map('symbol', toString(x.2), 'missing', toString(x.3), 'filled', toString(x.4), 'first', toString(x.5)),
    arraySlice(arrayReverseSort(x -> x.1, groupArrayIf((missing + filled, symbol, missing, filled, first_gap), missing + filled > 0)), 1, 20))) AS worst
FROM gaps
