-- Previous close and all-day suspension of some symbols on the days between two, from the daily bars, else the instrument list.
SELECT symbol, day, argMax(previous, (previous > 0, rank)) AS pre_close, max(halted) AS suspended
FROM (
    SELECT toString(b.symbol) AS symbol, toDate(frame) AS day, pre_close AS previous, b.suspended AS halted, 2 AS rank FROM bars_1d AS b FINAL
    WHERE toDate(frame) >= {first:Date} AND toDate(frame) <= {last:Date} AND (empty({symbols:Array(String)}) OR b.symbol IN {symbols:Array(String)})
    UNION ALL
    SELECT toString(i.symbol), i.day, i.pre_close, 0, 1 FROM instruments AS i FINAL
    WHERE i.day >= {first:Date} AND i.day <= {last:Date} AND (empty({symbols:Array(String)}) OR i.symbol IN {symbols:Array(String)})
)
GROUP BY symbol, day
