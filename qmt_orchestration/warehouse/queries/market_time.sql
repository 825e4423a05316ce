-- Time of the newest tick of a day, epoch ms; no rows when the day has none. Without FINAL and with the partition's
-- own bounds ClickHouse answers from the parts' metadata, so asking several times a second costs nothing.
SELECT toUnixTimestamp64Milli(max(time)) AS market_ms
FROM ticks
WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date})
HAVING count() > 0
SETTINGS final = 0
