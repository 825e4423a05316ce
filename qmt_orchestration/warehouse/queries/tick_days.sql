-- Days with ticks, and whether anything was inserted since their frames were last made final. A part's block number grows with
-- inserts and survives merges, so days that nothing touched cost nothing.
SELECT toDate(toString(p.partition)) AS day, p.block != f.block AS touched
FROM (SELECT partition, max(max_block_number) AS block FROM system.parts
      WHERE database = currentDatabase() AND table = 'ticks' AND active GROUP BY partition) AS p
LEFT JOIN (SELECT day, argMax(block, version) AS block FROM final_frames GROUP BY day) AS f ON toDate(toString(p.partition)) = f.day
ORDER BY day
