-- One day of bars_1m in a line: for the strip of past days.
SELECT uniqExact(symbol) AS symbols, uniqExact(frame) AS frames, count() AS bars, countIf(source = 'history') AS history
FROM bars_1m FINAL
WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
