-- The newest verdict of each check on a day, failures first, with its evidence and since when it has had this verdict.
SELECT asset, check, argMax(passed, at) AS ok, argMax(severity, at) AS level, argMax(expected, at) AS expected, argMax(found, at) AS found,
       argMax(evidence, at) AS evidence, argMax(run_id, at) AS run_id, toUnixTimestamp(max(at)) AS at_s,
       toUnixTimestamp(if(ok, maxIf(at, NOT passed), maxIf(at, passed))) AS changed_s, count() AS times, countIf(NOT passed) AS failures
FROM quality_results
WHERE day = {day:Date}
GROUP BY asset, check
ORDER BY ok, level = 'ERROR' DESC, asset, check
