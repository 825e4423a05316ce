-- Symbol, ticks, first and last time (epoch ms), without withdrawn ones.
SELECT toString(symbol) AS name, count(), toUnixTimestamp64Milli(min(time)), toUnixTimestamp64Milli(max(time))
FROM ticks FINAL WHERE bitAnd(flags, 128) = 0 GROUP BY symbol ORDER BY name
