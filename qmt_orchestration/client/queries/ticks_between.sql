-- Ticks of some symbols between two times, without withdrawn ones. Only the buckets (of ten minutes) of the range are read.
SELECT toString(t.symbol) AS symbol, time, lastPrice, open, high, low, lastClose, amount, volume, pvolume, total_volume, stockStatus, openInt,
       transactionNum, askPrice, bidPrice, askVol, bidVol, received_at, flags, quality_score
FROM ticks AS t FINAL
WHERE bucket >= toStartOfTenMinutes(fromUnixTimestamp64Milli({first:Int64}, 'Asia/Shanghai'))
  AND bucket <= toStartOfTenMinutes(fromUnixTimestamp64Milli({last:Int64}, 'Asia/Shanghai'))
  AND time >= fromUnixTimestamp64Milli({first:Int64}, 'Asia/Shanghai') AND time <= fromUnixTimestamp64Milli({last:Int64}, 'Asia/Shanghai')
  AND t.symbol IN {symbols:Array(String)} AND NOT withdrawn
ORDER BY symbol, time, total_volume
