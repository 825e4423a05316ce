-- Columns of a table with their types, in order; none: there is no such table.
SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String} ORDER BY position
