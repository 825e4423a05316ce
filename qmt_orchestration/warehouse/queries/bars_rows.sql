-- Rows of one day in a table of bars: the row count of a partition.
SELECT count() FROM {table:Identifier}
WHERE frame >= toDateTime({day:Date}, 'Asia/Shanghai') AND frame < toDateTime({day:Date} + 1, 'Asia/Shanghai')
