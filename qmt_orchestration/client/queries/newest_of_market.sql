-- Of each symbol the newest tick among those from a time on that were stored from `stored` (epoch µs, 0 = all) on. Copies are not merged
-- (no FINAL: a third of the cost), so `doubtful` says where a withdrawn one may matter: ask newest_ticks.sql about those symbols.
-- `reached`: the newest of all these, epoch ms; `asked`: ClickHouse's time before reading, epoch µs.
WITH NOT t.withdrawn AS ok, toUnixTimestamp64Micro(now64(6)) AS asked,
     fromUnixTimestamp64Milli({since:Int64}, 'Asia/Shanghai') AS since
SELECT toString(t.symbol) AS symbol, argMaxIf(t.time, t.moment, ok) AS time, argMaxIf(t.lastPrice, t.moment, ok) AS lastPrice,
       argMaxIf(t.open, t.moment, ok) AS open, argMaxIf(t.high, t.moment, ok) AS high, argMaxIf(t.low, t.moment, ok) AS low,
       argMaxIf(t.lastClose, t.moment, ok) AS lastClose, argMaxIf(t.total_volume, t.moment, ok) AS total_volume,
       argMaxIf(t.amount, t.moment, ok) AS amount, argMaxIf(t.openInt, t.moment, ok) AS openInt,
       argMaxIf(if({book:UInt8}, t.volume, 0), t.moment, ok) AS volume, argMaxIf(if({book:UInt8}, t.pvolume, 0), t.moment, ok) AS pvolume,
       argMaxIf(if({book:UInt8}, t.stockStatus, 0), t.moment, ok) AS stockStatus,
       argMaxIf(if({book:UInt8}, t.transactionNum, 0), t.moment, ok) AS transactionNum,
       argMaxIf(if({book:UInt8}, t.askPrice, []), t.moment, ok) AS askPrice, argMaxIf(if({book:UInt8}, t.bidPrice, []), t.moment, ok) AS bidPrice,
       argMaxIf(if({book:UInt8}, t.askVol, []), t.moment, ok) AS askVol, argMaxIf(if({book:UInt8}, t.bidVol, []), t.moment, ok) AS bidVol,
       toBool(max(t.withdrawn) OR (t.symbol, time) IN (SELECT symbol, time FROM ticks WHERE flags >= 128 AND withdrawn AND ticks.time >= since)) AS doubtful,
       toUnixTimestamp64Milli(max(max(t.time)) OVER ()) AS reached, asked
FROM ticks AS t
WHERE t.bucket >= toStartOfTenMinutes(since) AND t.time >= since AND t.stored_at >= fromUnixTimestamp64Micro({stored:Int64}, 'Asia/Shanghai')
GROUP BY t.symbol
SETTINGS final = 0
