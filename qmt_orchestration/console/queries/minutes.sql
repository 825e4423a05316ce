-- Bars per final minute of a day: the cells of the heat strip.
SELECT toUnixTimestamp(frame) AS frame_s, count() AS bars, countIf(source = 'filled') AS filled, countIf(source = 'history') AS history
FROM bars_1m FINAL
WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
GROUP BY frame ORDER BY frame
