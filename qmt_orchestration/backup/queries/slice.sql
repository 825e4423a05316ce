-- The rows of a partition from one minute up to, and without, another.
SELECT * FROM {table:Identifier}
WHERE _partition_id = {partition:String} AND {column:Identifier} >= {first:String} AND {column:Identifier} < {end:String}
