-- Days of the first edition's ticks that are not copied yet: partition, rows, bytes on disk.
SELECT partition_id, sum(rows), sum(bytes_on_disk) FROM system.parts
WHERE active AND database = currentDatabase() AND table = {table:String}
GROUP BY partition_id ORDER BY partition_id
