-- What a day consists of: bars and symbols, what they came from, ticks.
SELECT count() AS bars, uniqExact(symbol) AS symbols, uniqExact(frame) AS frames, countIf(source = 'history') AS history,
       countIf(source = 'filled') AS filled,
       (SELECT count() FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) SETTINGS final = 0) AS ticks
FROM bars_1m FINAL
WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
