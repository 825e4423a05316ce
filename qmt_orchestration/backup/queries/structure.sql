-- The columns of SELECT * with their types, as the table function file() takes them.
SELECT arrayStringConcat(groupArray(concat('`', name, '` ', type)), ', ')
FROM (
    SELECT name, type FROM system.columns
    WHERE database = {db:String} AND table = {table:String} AND default_kind NOT IN ('MATERIALIZED', 'ALIAS', 'EPHEMERAL')
    ORDER BY position
)
