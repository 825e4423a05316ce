-- Tables that hold rows, with the statement that makes them.
SELECT name, create_table_query
FROM system.tables
WHERE database = {db:String} AND engine LIKE '%MergeTree' AND NOT startsWith(name, '.inner') AND name != 'schema_versions'
ORDER BY name
