-- Rows of a partition, and a sum over all of their columns that does not depend on order or on merges.
SELECT count() AS rows, toString(sum(cityHash64(*))) AS digest
FROM {table:Identifier}
WHERE _partition_id = {partition:String}
