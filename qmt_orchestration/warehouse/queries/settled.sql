-- Symbols whose snapshots reach to the end of a frame (11:30, 15:00) or beyond: their last one has come.
SELECT DISTINCT toString(symbol) FROM ticks
WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND bucket >= toDateTime({frame:Int64}, 'Asia/Shanghai')
  AND time >= toDateTime({frame:Int64}, 'Asia/Shanghai') AND time < toDateTime({frame:Int64} + 300, 'Asia/Shanghai')
SETTINGS final = 0
