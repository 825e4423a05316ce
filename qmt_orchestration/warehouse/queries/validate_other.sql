-- Where a recording of ticks and a vendor's minutes of the same symbol and day are both there: our 240-row day against theirs. Two
-- vendors' minutes differ at most boundaries, so this says how much, not whether it is right.
SELECT toString(o.symbol) AS symbol, o.frame AS frame, abs(o.vol - v.vol) <= 100 AS vol_close, o.close = v.close AS close_equal,
       o.high = v.high AND o.low = v.low AS range_equal,
       concat('ours ', toString((o.open, o.high, o.low, o.close, o.vol)), ', the vendor''s ', toString((v.open, v.high, v.low, v.close, v.vol))) AS found
FROM minute_bars_240 AS o
INNER JOIN (SELECT * FROM qmt_bars FINAL WHERE period = '1m') AS v ON o.symbol = v.symbol AND o.frame = v.frame
ORDER BY symbol, frame
