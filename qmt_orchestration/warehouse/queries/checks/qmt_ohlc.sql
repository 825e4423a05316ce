-- Open, high, low and close of each minute against QMT's own.
-- Compared are live bars only: rows from QMT's history are what they are compared with, filled ones say there was no tick.
-- measure: share of compared minutes that differ
WITH d AS (
  SELECT b.symbol AS symbol, b.frame AS frame, greatest(abs(b.open - q.open), abs(b.high - q.high), abs(b.low - q.low), abs(b.close - q.close)) > 1e-4 AS differs, greatest(abs(b.open - q.open), abs(b.high - q.high), abs(b.low - q.low), abs(b.close - q.close)) AS weight, concat(toString(b.open), ' ', toString(b.high), ' ', toString(b.low), ' ', toString(b.close)) AS ours, concat(toString(q.open), ' ', toString(q.high), ' ', toString(q.low), ' ', toString(q.close)) AS theirs
  FROM (SELECT * FROM bars_1m WHERE toDate(frame) = {day:Date} AND source = 'live') AS b
  INNER JOIN (SELECT * FROM qmt_bars_1m WHERE toDate(frame) = {day:Date}) AS q ON b.symbol = q.symbol AND b.frame = q.frame
)
SELECT
  countIf(differs) / greatest(count(), 1) AS measure,
  'prices equal' AS expected,
  concat(toString(countIf(differs)), ' of ', toString(count()), ' minutes differ, of ', toString(uniqExactIf(symbol, differs)), ' symbols') AS found,
  toJSONString(arrayMap(x -> map('symbol', toString(x.2), 'frame', toString(x.3), 'ours', x.4, 'qmt', x.5),
    arraySlice(arrayReverseSort(x -> x.1, groupArrayIf((weight, symbol, frame, ours, theirs), differs)), 1, 20))) AS worst
FROM d
