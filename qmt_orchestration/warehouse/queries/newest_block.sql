-- The number of the newest block inserted into a day of a table; 0 = the day is empty.
SELECT max(max_block_number) FROM system.parts
WHERE database = currentDatabase() AND table = {table:String} AND active AND partition = toString(toYYYYMMDD({day:Date}))
