-- Checks whose newest result of a day is a failure, newest first.
SELECT toString(day) AS day, asset, check, argMax(severity, at) AS severity, argMax(expected, at) AS expected, argMax(found, at) AS found,
       argMax(run_id, at) AS run_id, toUnixTimestamp(max(at)) AS at, argMax(passed, at) AS last_passed
FROM quality_results
WHERE day >= {day:Date} - 14
GROUP BY day, asset, check
HAVING last_passed = 0
ORDER BY at DESC, asset, check
LIMIT 40
