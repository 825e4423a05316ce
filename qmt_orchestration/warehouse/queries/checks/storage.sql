-- The disk has room, and no part of a table outlives its TTL by more than two days.
-- measure: share of the fullest disk in use; 2 when an expired part is still there
WITH
  (SELECT (max(1 - free_space / total_space), argMax(name, 1 - free_space / total_space), argMax(free_space, 1 - free_space / total_space)) FROM system.disks WHERE total_space > 0) AS disk,
  expired AS (
    SELECT table, partition, sum(rows) AS rows, formatReadableSize(sum(bytes_on_disk)) AS size FROM system.parts
    WHERE active AND database = currentDatabase()
      AND delete_ttl_info_max > toDateTime(0) AND delete_ttl_info_max < now() - 2 * 86400
    GROUP BY table, partition ORDER BY table, partition
  )
SELECT
  if((SELECT count() FROM expired) > 0, 2., disk.1) AS measure,
  'room on the disk, expired data dropped' AS expected,
  concat('disk ', disk.2, ' ', toString(round(100 * disk.1)), ' percent in use, ', formatReadableSize(disk.3), ' free; ',
         toString((SELECT count() FROM expired)), ' expired partitions') AS found,
  (SELECT toJSONString(groupArray(20)(map('table', table, 'partition', partition, 'rows', toString(rows), 'size', size))) FROM expired) AS worst
