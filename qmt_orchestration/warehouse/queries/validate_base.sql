-- The finest intraday bars that a vendor gave of each symbol and day, as if they were our minutes, from the first trade on. `ticks`
-- holds the minutes that a row stands for (the opening call of a 241-row day none), so that a rollup tells whether it is whole.
INSERT INTO bars_1m (symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score, version)
WITH
    v AS (SELECT *, toUInt16OrZero(trimRight(period, 'm')) AS n FROM qmt_bars FINAL WHERE toDate(frame) = {day:Date} AND match(period, '^[0-9]+m$')),
    finest AS (SELECT symbol, toDate(frame) AS day, min(n) AS n FROM v GROUP BY symbol, day),
    chosen AS (
        SELECT v.symbol AS symbol, frame, open, high, low, close, vol, amount, v.n AS n, sum(vol) OVER (PARTITION BY v.symbol, toDate(frame) ORDER BY frame) AS so_far
        FROM v INNER JOIN finest AS f ON v.symbol = f.symbol AND toDate(v.frame) = f.day AND v.n = f.n
    )
SELECT symbol, frame, open, high, low, close, vol, amount, 'history', if(toHour(frame) = 9 AND toMinute(frame) = 30, 0, n), 1, 1
FROM chosen WHERE so_far > 0
