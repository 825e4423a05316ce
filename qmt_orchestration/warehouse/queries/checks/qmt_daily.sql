-- Our daily bars against QMT's own daily bars: volume to a lot (with and without after-hours trading: QMT's daily bar holds it),
-- open, high, low, close.
-- measure: share of compared symbols that differ
WITH d AS (
  SELECT b.symbol AS symbol, b.vol AS vol, b.after_hours_vol AS after_hours, q.vol AS qmt_vol,
         least(abs(b.vol - q.vol), abs(b.vol + b.after_hours_vol - q.vol)) > 100
           OR greatest(abs(b.open - q.open), abs(b.high - q.high), abs(b.low - q.low), abs(b.close - q.close)) > 1e-4 AS differs,
         concat(toString(b.open), ' ', toString(b.high), ' ', toString(b.low), ' ', toString(b.close), ' ', toString(b.vol)) AS ours,
         concat(toString(q.open), ' ', toString(q.high), ' ', toString(q.low), ' ', toString(q.close), ' ', toString(q.vol)) AS theirs
  FROM (SELECT * FROM bars_1d WHERE toDate(frame) = {day:Date} AND NOT suspended) AS b
  INNER JOIN (SELECT * FROM qmt_bars WHERE period = '1d' AND toDate(frame) = {day:Date} AND vol > 0) AS q ON b.symbol = q.symbol
)
SELECT
  countIf(differs) / greatest(count(), 1) AS measure,
  'daily bars equal' AS expected,
  concat(toString(countIf(differs)), ' of ', toString(count()), ' symbols differ') AS found,
  toJSONString(arrayMap(x -> map('symbol', toString(x.2), 'ours', x.3, 'qmt', x.4),
    arraySlice(arrayReverseSort(x -> x.1, groupArrayIf((abs(vol - qmt_vol), symbol, ours, theirs), differs)), 1, 20))) AS worst
FROM d
