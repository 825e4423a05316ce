-- Our rollup of a vendor's minute bars against the vendor's own bars of the same period (qmt_bars), row for row: symbol, frame, equal, both.
SELECT toString(v.symbol) AS symbol, v.frame AS frame,
       (o.open, o.high, o.low, o.close, o.vol) = (v.open, v.high, v.low, v.close, v.vol) AND abs(o.amount - v.amount) < 0.01 AS equal,
       concat('ours ', toString((o.open, o.high, o.low, o.close, o.vol, o.amount)), ', the vendor''s ',
              toString((v.open, v.high, v.low, v.close, v.vol, v.amount))) AS found
FROM (SELECT * FROM qmt_bars FINAL WHERE period = {period:String}) AS v
LEFT JOIN (SELECT * FROM {table:Identifier} FINAL) AS o ON v.symbol = o.symbol AND v.frame = o.frame
WHERE (v.symbol, toDate(v.frame)) IN (SELECT symbol, toDate(frame) FROM bars_1m)
ORDER BY symbol, frame
