-- digest.sql for an exported file, read with the table's own types.
SELECT count() AS rows, toString(sum(cityHash64(*))) AS digest
FROM file({path:String}, {format:String}, {structure:String})
