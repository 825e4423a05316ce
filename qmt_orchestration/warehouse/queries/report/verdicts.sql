-- The newest verdict of each check on a day, failures first.
SELECT asset, check, argMax(passed, at) AS passed, argMax(severity, at) AS severity, argMax(expected, at) AS expected,
       argMax(found, at) AS found, max(at) AS checked_at
FROM quality_results WHERE day = {day:Date}
GROUP BY asset, check
ORDER BY passed, severity = 'ERROR' DESC, asset, check
