-- The whole day computed once more from its ticks equals what was made minute by minute. The outcome of the newest such computation
-- is in rolled_up; bars that differed were repaired by it, so the next one passes again.
-- measure: bars that differed
SELECT
  toFloat64(argMax(r.differed, r.at)) AS measure,
  'the same bars from the whole day' AS expected,
  if(count() = 0, 'not computed as a whole yet', concat(toString(argMax(r.differed, r.at)), ' bars differed and were repaired')) AS found,
  if(count() = 0, '[]', argMax(r.worst, r.at)) AS worst
FROM rolled_up AS r
WHERE day = {day:Date} AND period = '1m'
