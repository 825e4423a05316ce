-- Checks whose newest result of a day is a failure, newest first.
SELECT toString(day) AS day_text, asset, check, newest.1 AS severity, newest.2 AS expected, newest.3 AS found, newest.4 AS run_id,
       toUnixTimestamp(last_at) AS at_s
FROM (
    SELECT day, asset, check, argMax((severity, expected, found, run_id, passed), at) AS newest, max(at) AS last_at
    FROM quality_results
    WHERE day >= {day:Date} - 14
    GROUP BY day, asset, check
)
WHERE newest.5 = 0
ORDER BY last_at DESC, asset, check
LIMIT 40
