-- What `qmt migrate` does not make again by itself: materialized views, and functions, which belong to the server.
SELECT 'view' AS kind, name, create_table_query AS statement
FROM system.tables
WHERE database = {db:String} AND engine = 'MaterializedView'
UNION ALL
SELECT 'function' AS kind, name, create_query AS statement
FROM system.functions
WHERE origin = 'SQLUserDefined' AND startsWith(name, {db:String})
ORDER BY kind, name
