-- Symbols of a day that need a look, a few of each reason: ticks rejected, few ticks (against the median of all), suspended.
-- Of the rejected, repeats are no trouble. n: ticks rejected; per cent of the median; 0.
WITH
    of_day AS (SELECT symbol, name, suspended FROM instruments WHERE day = (SELECT max(day) FROM instruments WHERE day <= {day:Date})),
    rejected AS (
        SELECT toString(symbol) AS symbol, 'rejected' AS why, topK(1)(toString(reason))[1] AS detail, count() AS n FROM ticks_rejected
        WHERE received_at > now() - INTERVAL 1 DAY AND toDate(time, 'Asia/Shanghai') = {day:Date} AND reason != 'duplicate'
        GROUP BY symbol ORDER BY n DESC, symbol LIMIT 10
    ),
    seen AS (SELECT toString(symbol) AS symbol, sum(ticks) AS ticks, count() AS bars FROM bars_1m FINAL
             WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) GROUP BY symbol),
    (SELECT median(ticks) FROM seen) AS usual,
    thin AS (SELECT symbol, 'thin' AS why, '' AS detail, toUInt64(100 * ticks / usual) AS n FROM seen
             WHERE usual > 100 AND ticks < 0.2 * usual ORDER BY ticks, symbol LIMIT 10),
    halted AS (SELECT toString(symbol) AS symbol, 'suspended' AS why, '' AS detail, toUInt64(0) AS n FROM of_day
               WHERE suspended ORDER BY symbol LIMIT 10)
SELECT f.symbol AS symbol, d.name AS name, why, detail, n
FROM (SELECT * FROM rejected UNION ALL SELECT * FROM thin UNION ALL SELECT * FROM halted) AS f LEFT JOIN of_day AS d ON f.symbol = toString(d.symbol)
