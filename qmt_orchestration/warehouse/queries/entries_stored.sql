-- Which batches of a feed session are already in `ticks`, and how many distinct ticks of each: asked before an entry
-- is inserted that may have been inserted long ago (its token can be outside the de-duplication window).
-- CRC32 is the shard rule of stream.keys.shard_of: sequence numbers count per shard.
SELECT seq, uniqExact(symbol, time, volume, pvolume, amount) AS distinct_ticks
FROM ticks
WHERE session = {session:String}
  AND seq IN {seqs:Array(UInt64)}
  AND time BETWEEN fromUnixTimestamp64Milli({first_ms:Int64}, 'Asia/Shanghai')
               AND fromUnixTimestamp64Milli({last_ms:Int64}, 'Asia/Shanghai')
  AND CRC32(symbol) % {shards:UInt32} = {shard:UInt32}
GROUP BY seq
SETTINGS final = 0
