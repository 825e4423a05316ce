-- Rows, content and newest version of a day in a table of bars, per symbol.
SELECT symbol, count() AS rows, max(version) AS newest, sum(cityHash64(*)) AS content
FROM {table:Identifier} FINAL
WHERE frame >= toDateTime({day:Date}, 'Asia/Shanghai') AND frame < toDateTime({day:Date} + 1, 'Asia/Shanghai') GROUP BY symbol
