-- Volume of each minute against QMT's own, which is in whole lots.
-- Compared are live bars only: rows from QMT's history are what they are compared with, filled ones say there was no tick.
-- measure: share of compared minutes that differ
WITH d AS (
  SELECT b.symbol AS symbol, b.frame AS frame, abs(b.vol - q.vol) > 100 AS differs, abs(b.vol - q.vol) AS weight, toString(b.vol) AS ours, toString(q.vol) AS theirs
  FROM (SELECT * FROM bars_1m WHERE toDate(frame) = {day:Date} AND source = 'live') AS b
  INNER JOIN (SELECT * FROM qmt_bars_1m WHERE toDate(frame) = {day:Date}) AS q ON b.symbol = q.symbol AND b.frame = q.frame
)
SELECT
  countIf(differs) / greatest(count(), 1) AS measure,
  'volumes equal to a lot' AS expected,
  concat(toString(countIf(differs)), ' of ', toString(count()), ' minutes differ, of ', toString(uniqExactIf(symbol, differs)), ' symbols') AS found,
  toJSONString(arrayMap(x -> map('symbol', toString(x.2), 'frame', toString(x.3), 'ours', x.4, 'qmt', x.5),
    arraySlice(arrayReverseSort(x -> x.1, groupArrayIf((weight, symbol, frame, ours, theirs), differs)), 1, 20))) AS worst
FROM d
