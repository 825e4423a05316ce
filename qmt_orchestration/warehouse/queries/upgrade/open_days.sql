-- Days with ticks none of whose frames is final by this version, and how far their bars from ticks had reached (null: no bars).
SELECT toDate(p.partition) AS day, b.had
FROM (SELECT DISTINCT partition FROM system.parts WHERE active AND database = currentDatabase() AND table = 'ticks') AS p
LEFT JOIN (SELECT toDate(frame) AS day, toNullable(max(frame)) AS had FROM bars_1m WHERE source != 'history' GROUP BY day) AS b
  ON toDate(p.partition) = b.day
WHERE toDate(p.partition) NOT IN (SELECT day FROM final_frames)
ORDER BY day
