-- Symbols whose snapshots reach to the end of a frame or beyond: at 11:30 and 15:00 their last one has come.
SELECT toString(symbol)
FROM bar_states_1m
WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) AND toUnixTimestamp(frame) = {frame:Int64}
GROUP BY symbol
HAVING max(last_time) >= toDateTime({frame:Int64}, 'Asia/Shanghai')
SETTINGS final = 0
