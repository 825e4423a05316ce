-- The last verdict of each check within ten days of the newest one.
SELECT asset, check, argMax(passed, at) AS passed
FROM quality_results
WHERE day > (SELECT max(day) FROM quality_results) - 10
GROUP BY asset, check
