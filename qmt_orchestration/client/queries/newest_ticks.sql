-- The newest tick since a time of each of some symbols (none = all but those left out), without withdrawn ones.
SELECT toString(t.symbol) AS symbol, argMax((t.time, t.lastPrice, t.open, t.high, t.low, t.lastClose, t.total_volume, t.amount, t.volume, t.pvolume,
       t.stockStatus, t.openInt, t.transactionNum, t.askPrice, t.bidPrice, t.askVol, t.bidVol), (t.time, t.total_volume)) AS newest
FROM ticks AS t FINAL
WHERE t.time >= fromUnixTimestamp64Milli({since:Int64}, 'Asia/Shanghai') AND t.time <= fromUnixTimestamp64Milli({until:Int64}, 'Asia/Shanghai')
  AND (empty({symbols:Array(String)}) OR t.symbol IN {symbols:Array(String)})
  AND bitAnd(t.flags, 128) = 0
GROUP BY t.symbol
