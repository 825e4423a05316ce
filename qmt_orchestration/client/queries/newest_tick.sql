-- The newest tick of one symbol. No FINAL: the newest is the newest, and this way it is a look at the end of an index.
SELECT toString(symbol) AS symbol, toUnixTimestamp64Milli(time) AS time_ms, lastPrice AS price, open, high, low, lastClose AS pre_close,
       pvolume AS vol, amount, arraySlice(askPrice, 1, 5) AS ask, arraySlice(askVol, 1, 5) AS ask_vol,
       arraySlice(bidPrice, 1, 5) AS bid, arraySlice(bidVol, 1, 5) AS bid_vol
FROM ticks
WHERE symbol = {symbol:String}
ORDER BY time DESC
LIMIT 1
SETTINGS final = 0
