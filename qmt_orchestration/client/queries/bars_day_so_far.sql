-- The running day of some symbols (none = all) as far as it has come, those left out that have a daily bar.
SELECT toString(b.symbol) AS symbol, frame, open, high, low, close, vol, amount, toString(b.source) AS source, b.ticks AS ticks, quality_score,
       pre_close, 0::UInt8 AS suspended
FROM bars_1d_live(day = {day:Date}) AS b
WHERE (empty({symbols:Array(String)}) OR b.symbol IN {symbols:Array(String)})
  AND b.symbol NOT IN (SELECT symbol FROM bars_1d WHERE toDate(frame) = {day:Date})
