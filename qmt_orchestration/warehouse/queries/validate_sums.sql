-- A vendor's finest bars of each symbol and day against our rollup of them into {table}: volume, amount and extremes add up.
SELECT toString(m.symbol) AS symbol, m.day AS day, (m.vol, m.high, m.low) = (w.vol, w.high, w.low) AND abs(m.amount - w.amount) < 0.01 AS right,
       concat('minutes ', toString((m.vol, m.amount, m.high, m.low)), ', ours ', toString((w.vol, w.amount, w.high, w.low))) AS found
FROM (SELECT b.symbol AS symbol, toDate(b.frame) AS day, sum(b.vol) AS vol, sum(b.amount) AS amount, max(b.high) AS high, min(b.low) AS low
      FROM bars_1m AS b FINAL GROUP BY symbol, day) AS m
LEFT JOIN (SELECT b.symbol AS symbol, toDate(b.frame) AS day, sum(b.vol) AS vol, sum(b.amount) AS amount, max(b.high) AS high, min(b.low) AS low
           FROM {table:Identifier} AS b FINAL GROUP BY symbol, day) AS w ON m.symbol = w.symbol AND m.day = w.day
ORDER BY symbol, day
