-- Failed and all checks per day, for the strip of past days.
SELECT toString(day) AS day_text, count() AS checks, countIf(ok = 0 AND level = 'ERROR') AS errors, countIf(ok = 0 AND level != 'ERROR') AS warnings,
       toUnixTimestamp(max(newest)) AS checked_s
FROM (SELECT day, asset, check, argMax(passed, at) AS ok, argMax(severity, at) AS level, max(at) AS newest
      FROM quality_results WHERE day >= {day:Date} - 45 GROUP BY day, asset, check)
GROUP BY day
