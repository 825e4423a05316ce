-- Symbols with a bar in each minute of the day, and how many of them traded.
SELECT formatDateTime(frame, '%H:%i', 'Asia/Shanghai') AS minute, count() AS bars, countIf(source != 'filled') AS traded
FROM bars_1m
WHERE frame >= toDateTime({day:Date}, 'Asia/Shanghai') AND frame < toDateTime({day:Date} + 1, 'Asia/Shanghai')
GROUP BY frame ORDER BY frame
