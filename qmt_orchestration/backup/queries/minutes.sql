-- Rows of each minute of a partition, in order.
SELECT toString(toStartOfMinute({column:Identifier})) AS minute, count() AS rows
FROM {table:Identifier}
WHERE _partition_id = {partition:String}
GROUP BY minute
ORDER BY minute
