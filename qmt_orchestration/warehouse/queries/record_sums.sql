-- Record the sums of a day and table; symbols that have no rows any more get a row of zeros.
INSERT INTO day_sums (day, table, symbol, rows, content, newest)
SELECT {day:Date}, {table:String}, symbol, max(n), max(c), max(newest) FROM (
    SELECT toString(symbol) AS symbol, s.rows AS n, s.content AS c, s.newest AS newest FROM ($sums) AS s
    UNION ALL
    SELECT toString(symbol), 0, 0, 0 FROM day_sums WHERE day = {day:Date} AND table = {table:String}
)
GROUP BY symbol
