-- Time of the newest tick of a day, epoch ms, whoever sent it (0: none): an upper bound of market time that ClickHouse answers from
-- the parts' metadata, so that asking several times a second costs nothing.
SELECT if(count() = 0, 0, toUnixTimestamp64Milli(max(time))) FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) SETTINGS final = 0
