-- Symbol, ticks, first and last time (epoch ms), without withdrawn ones.
SELECT toString(symbol) AS name, count(), toUnixTimestamp64Milli(min(time)), toUnixTimestamp64Milli(max(time))
FROM ticks FINAL WHERE NOT withdrawn GROUP BY symbol ORDER BY name
