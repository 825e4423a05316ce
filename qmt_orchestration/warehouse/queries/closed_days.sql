-- Closed days with bars: day, table, whether sums of it were recorded, and whether its parts were written (or merged) since.
WITH
    recorded AS (SELECT day, table, max(at) AS at FROM day_sums GROUP BY day, table),
    parts AS (
        SELECT table, partition, max(modification_time) AS written FROM system.parts
        WHERE active AND database = currentDatabase() GROUP BY table, partition
    ),
    days AS (
        SELECT DISTINCT toDate(parseDateTimeBestEffortOrZero(partition)) AS day FROM parts WHERE table = 'bars_1m'
        UNION DISTINCT SELECT day FROM recorded
    )
SELECT t.day AS day, t.table AS table, r.day = t.day AS is_recorded, p.partition = '' OR p.written >= toDateTime(r.at) AS touched
FROM (SELECT day, arrayJoin({tables:Array(String)}) AS table FROM days) AS t
LEFT JOIN recorded AS r ON r.day = t.day AND r.table = t.table
LEFT JOIN parts AS p ON p.table = t.table AND p.partition = toString(if(t.table IN ('ticks', 'bars_1m'), toYYYYMMDD(t.day), toYYYYMM(t.day)))
WHERE t.day < {today:Date}
ORDER BY day, table
