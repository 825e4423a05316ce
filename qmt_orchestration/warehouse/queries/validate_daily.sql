-- A vendor's minute bars summed over a day against the vendor's daily bar. The vendor rounds a minute's volume to lots and its amount to
-- yuan: 240 of these may add up to some shares and yuan; a day's high and low may lie outside the minutes'.
SELECT toString(v.symbol) AS symbol, v.frame AS frame, m.open = v.open AND m.close = v.close AS prices_ok,
       abs(m.vol - v.vol) <= {vol_tolerance:Int64} AS vol_ok, abs(m.amount - v.amount) <= {amount_tolerance:Float64} AS amount_ok,
       m.high <= v.high AND m.low >= v.low AS range_ok,
       concat('minutes ', toString((m.open, m.high, m.low, m.close, m.vol, m.amount)), ', the day ',
              toString((v.open, v.high, v.low, v.close, v.vol, v.amount))) AS found
FROM (SELECT * FROM qmt_bars FINAL WHERE period = '1d') AS v
INNER JOIN (
    SELECT symbol, toDate(frame) AS day, argMin(b.open, b.frame) AS open, max(b.high) AS high, min(b.low) AS low,
           argMax(b.close, b.frame) AS close, toInt64(sum(b.vol)) AS vol, sum(b.amount) AS amount
    FROM bars_1m AS b FINAL GROUP BY symbol, day
) AS m ON v.symbol = m.symbol AND toDate(v.frame) = m.day
ORDER BY symbol, frame
