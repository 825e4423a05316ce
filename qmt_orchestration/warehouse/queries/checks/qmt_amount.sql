-- Amount of each minute against QMT's own, which is in whole yuan.
-- Compared are live bars only: rows from QMT's history are what they are compared with, filled ones say there was no tick.
-- measure: share of compared minutes that differ
WITH d AS (
  SELECT b.symbol AS symbol, b.frame AS frame, abs(b.amount - q.amount) > 1 + 1e-6 * q.amount AS differs, abs(b.amount - q.amount) AS weight, toString(b.amount) AS ours, toString(q.amount) AS theirs
  FROM (SELECT * FROM bars_1m WHERE toDate(frame) = {day:Date} AND source = 'live') AS b
  INNER JOIN (SELECT * FROM qmt_bars_1m WHERE toDate(frame) = {day:Date}) AS q ON b.symbol = q.symbol AND b.frame = q.frame
)
SELECT
  countIf(differs) / greatest(count(), 1) AS measure,
  'amounts equal to a yuan' AS expected,
  concat(toString(countIf(differs)), ' of ', toString(count()), ' minutes differ, of ', toString(uniqExactIf(symbol, differs)), ' symbols') AS found,
  toJSONString(arrayMap(x -> map('symbol', toString(x.2), 'frame', toString(x.3), 'ours', x.4, 'qmt', x.5),
    arraySlice(arrayReverseSort(x -> x.1, groupArrayIf((weight, symbol, frame, ours, theirs), differs)), 1, 20))) AS worst
FROM d
