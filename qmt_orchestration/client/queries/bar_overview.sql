-- Symbol, whether minutes (else days), rows, first and last start (epoch s) of stored bars; minutes of the 240-row day.
SELECT * FROM (
SELECT toString(symbol) AS name, 1 AS minutes, countIf(toHour(frame) * 60 + toMinute(frame) != 570) AS bars,
       greatest(toUnixTimestamp(min(frame)) - 60, toUnixTimestamp(toStartOfDay(min(frame))) + 34200) AS first, toUnixTimestamp(max(frame)) - 60 AS last
FROM bars_1m FINAL GROUP BY symbol
UNION ALL
SELECT toString(symbol), 0, count(), toUnixTimestamp(toStartOfDay(min(frame))), toUnixTimestamp(toStartOfDay(max(frame)))
FROM bars_1d FINAL GROUP BY symbol
) ORDER BY name, minutes DESC
