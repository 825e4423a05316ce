-- Partitions of the last week's closed days that have more than one part: the night merges them.
SELECT table, partition_id
FROM system.parts
WHERE active AND database = currentDatabase()
  AND table IN ('ticks', 'bars_1m')
  AND match(partition_id, '^\\d{8}$')
  AND partition_id < formatDateTime({today:Date}, '%Y%m%d') AND partition_id >= formatDateTime({today:Date} - 7, '%Y%m%d')
GROUP BY table, partition_id
HAVING count() > 1
ORDER BY partition_id, table
