-- Market time of a day, epoch ms: how far the k-th newest symbol has come, k = max(1, 1 % of the symbols that ticked in the newest
-- buckets), so that no single symbol's clock closes a minute. No rows when the day has no ticks.
WITH (SELECT max(time) FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) SETTINGS final = 0) AS newest
SELECT toUnixTimestamp64Milli(arrayReverseSort(groupArray(reached))[greatest(intDiv(count(), 100), 1)]) AS market_ms
FROM (
    SELECT max(time) AS reached FROM ticks
    WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND bucket >= newest - toIntervalMinute(30)
      AND (symbol, time) NOT IN (SELECT symbol, time FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND flags >= 128 AND withdrawn)
    GROUP BY symbol
)
HAVING count() > 0
SETTINGS final = 0
