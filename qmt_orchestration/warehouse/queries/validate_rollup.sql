-- Our rollup of a vendor's finer bars against the vendor's own bars of {minutes} minutes, row for row: symbol, frame, whether it can be
-- compared (all its minutes are there, traded from its first one on), equal, both.
SELECT toString(v.symbol) AS symbol, v.frame AS frame, o.ticks >= {minutes:UInt16} OR o.ticks >= end_i - {minutes:UInt16} * (intDiv(end_i + {minutes:UInt16} - 1, {minutes:UInt16}) - 1) AS comparable,
       (o.open, o.high, o.low, o.close, o.vol) = (v.open, v.high, v.low, v.close, v.vol) AND abs(o.amount - v.amount) < 0.01 AS equal,
       concat('ours ', toString((o.open, o.high, o.low, o.close, o.vol, o.amount)), ', the vendor''s ',
              toString((v.open, v.high, v.low, v.close, v.vol, v.amount))) AS found
FROM (SELECT *, toHour(frame) * 60 + toMinute(frame) AS minute FROM qmt_bars FINAL WHERE period = {period:String}) AS v
INNER JOIN (SELECT minute, toInt64(i) AS end_i FROM trading_minutes(day = toDate(0))) AS m ON v.minute = m.minute
LEFT JOIN (SELECT * FROM {table:Identifier} FINAL) AS o ON v.symbol = o.symbol AND v.frame = o.frame
WHERE (v.symbol, toDate(v.frame)) IN (
    SELECT symbol, toDate(frame) FROM qmt_bars
    WHERE match(period, '^[0-9]+m$') AND toUInt16OrZero(trimRight(period, 'm')) < {minutes:UInt16}
)
ORDER BY symbol, frame
