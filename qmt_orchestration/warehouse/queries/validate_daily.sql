-- A vendor's finest intraday bars summed over a day against the vendor's daily bar: symbol, frame, whether the day is whole (all 240
-- minutes, some trade), flags, both. The vendor rounds a minute's volume to lots and its amount to yuan, so that each
-- minute of a traded row may be off by 50 shares and half a yuan; a day's high and low may lie outside the minutes'. Where there is
-- after-hours trading, the day's volume and amount may hold it.
WITH
    v AS (SELECT *, toUInt16OrZero(trimRight(period, 'm')) AS n FROM qmt_bars FINAL WHERE match(period, '^[0-9]+m$')),
    finest AS (SELECT symbol, toDate(frame) AS day, min(n) AS n FROM v GROUP BY symbol, day),
    m AS (
        SELECT f.symbol AS symbol, f.day AS day, argMinIf(x.open, x.frame, x.vol > 0) AS open, maxIf(x.high, x.vol > 0) AS high,
               minIf(x.low, x.vol > 0) AS low, argMax(x.close, x.frame) AS close, toInt64(sum(x.vol)) AS vol, sum(x.amount) AS amount,
               toInt64(sumIf(x.n, x.vol > 0)) AS traded, sumIf(x.n, formatDateTime(x.frame, '%H:%i', 'Asia/Shanghai') != '09:30') AS minutes
        FROM v AS x INNER JOIN finest AS f ON x.symbol = f.symbol AND toDate(x.frame) = f.day AND x.n = f.n
        GROUP BY symbol, day
    )
SELECT toString(d.symbol) AS symbol, d.frame AS frame, m.minutes = 240 AND m.vol > 0 AND d.vol > 0 AS comparable,
       m.open = d.open AND m.close = d.close AS prices_ok,
       toDate(d.frame) >= b.late AS after_hours,
       abs(m.vol - d.vol) <= 50 * m.traded OR (after_hours AND d.vol > m.vol) AS vol_ok,
       abs(m.amount - d.amount) <= 0.5 * m.traded + 0.01 OR (after_hours AND d.amount > m.amount) AS amount_ok,
       m.high <= d.high AND m.low >= d.low AS range_ok,
       abs(m.vol - d.vol) <= {vol_usual:Int64} AS vol_close, m.high = d.high AND m.low = d.low AS range_equal,
       concat('minutes ', toString((m.open, m.high, m.low, m.close, m.vol, m.amount)), ', the day ',
              toString((d.open, d.high, d.low, d.close, d.vol, d.amount))) AS found
FROM (SELECT * FROM qmt_bars FINAL WHERE period = '1d') AS d
LEFT JOIN m ON d.symbol = m.symbol AND toDate(d.frame) = m.day
INNER JOIN trading_codes AS b ON right(d.symbol, 2) = b.market AND left(d.symbol, 3) = b.code
ORDER BY symbol, frame
