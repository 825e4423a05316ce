-- The newest tick of one symbol among those stamped since a moment (epoch ms). Only the buckets from there on are read.
SELECT toString(symbol) AS symbol, toUnixTimestamp64Milli(time) AS time_ms, lastPrice AS price, open, high, low, lastClose AS pre_close,
       total_volume AS vol, amount, arraySlice(askPrice, 1, 5) AS ask, arraySlice(askVol, 1, 5) AS ask_vol,
       arraySlice(bidPrice, 1, 5) AS bid, arraySlice(bidVol, 1, 5) AS bid_vol
FROM ticks FINAL
WHERE symbol = {symbol:String} AND bucket >= fromUnixTimestamp64Milli({since:Int64}, 'Asia/Shanghai')
  AND time >= fromUnixTimestamp64Milli({since:Int64}, 'Asia/Shanghai') AND NOT withdrawn
ORDER BY time DESC, total_volume DESC
LIMIT 1
