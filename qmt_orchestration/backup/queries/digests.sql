-- digest.sql for every partition of a table.
SELECT _partition_id AS partition, count() AS rows, toString(sum(cityHash64(*))) AS digest
FROM {table:Identifier}
GROUP BY partition
