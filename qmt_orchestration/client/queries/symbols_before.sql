-- Symbols that have a tick on the day of a time, but none from that time on. Of the day only the column of symbols is read.
WITH fromUnixTimestamp64Milli({since:Int64}, 'Asia/Shanghai') AS since
SELECT DISTINCT toString(t.symbol) AS symbol FROM ticks AS t
PREWHERE t.symbol NOT IN (SELECT symbol FROM ticks WHERE bucket >= toStartOfTenMinutes(since) AND ticks.time >= since)
WHERE toYYYYMMDD(t.time) = toYYYYMMDD(since)
SETTINGS final = 0
