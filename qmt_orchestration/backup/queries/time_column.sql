-- A column of the sorting key that holds a time: a large partition is read in slices of it.
SELECT name FROM system.columns
WHERE database = {db:String} AND table = {table:String} AND is_in_sorting_key AND startsWith(type, 'DateTime')
ORDER BY position LIMIT 1
