-- The newest tick between two times of each of some symbols, without withdrawn ones. The book costs more than the rest;
-- ticks are stored in buckets of ten minutes: only those from the first time on are read.
SELECT toString(t.symbol) AS symbol, time, lastPrice, open, high, low, lastClose, total_volume, amount, openInt, volume, pvolume, stockStatus,
       transactionNum, if({book:UInt8}, t.askPrice, []) AS askPrice, if({book:UInt8}, t.bidPrice, []) AS bidPrice,
       if({book:UInt8}, t.askVol, []) AS askVol, if({book:UInt8}, t.bidVol, []) AS bidVol
FROM ticks AS t FINAL
WHERE t.bucket >= toStartOfTenMinutes(fromUnixTimestamp64Milli({since:Int64}, 'Asia/Shanghai'))
  AND t.time >= fromUnixTimestamp64Milli({since:Int64}, 'Asia/Shanghai') AND t.time <= fromUnixTimestamp64Milli({until:Int64}, 'Asia/Shanghai')
  AND t.symbol IN {symbols:Array(String)} AND NOT t.withdrawn
ORDER BY t.symbol, t.time DESC, t.total_volume DESC
LIMIT 1 BY t.symbol
