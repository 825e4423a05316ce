-- Tables of the database: name, key, columns in their order.
SELECT t.name, any(t.sorting_key), arrayMap(c -> c.2, arraySort(groupArray((c.position, c.name))))
FROM system.tables AS t
INNER JOIN system.columns AS c ON c.table = t.name AND c.database = t.database
WHERE t.database = currentDatabase() AND t.engine LIKE '%MergeTree'
GROUP BY t.name
