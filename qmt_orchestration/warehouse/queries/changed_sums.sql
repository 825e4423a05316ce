-- Symbols of a recorded day and table whose rows are fewer than recorded, or differ although nothing newer was written.
SELECT toString(o.symbol) AS symbol, o.rows AS recorded, n.rows AS found
FROM (SELECT * FROM day_sums FINAL WHERE day = {day:Date} AND table = {table:String}) AS o LEFT JOIN ($sums) AS n ON o.symbol = n.symbol
WHERE n.rows < o.rows OR (n.content != o.content AND n.newest <= o.newest)
ORDER BY symbol
