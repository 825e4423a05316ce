-- Per symbol, when the snapshot was received that completes the minute ending at `frame` (epoch s) of a session's end: stamped
-- at or after it, with all that was traded. With `traded` only symbols that traded since: at 15:00 the closing auction.
WITH toDateTime64({frame:Int64}, 3, 'Asia/Shanghai') AS end
SELECT toString(symbol), toUnixTimestamp64Milli(minIf(received_at, time >= end AND pvolume = volume_after)) AS received_ms
FROM (SELECT symbol, time, received_at, pvolume, max(pvolume) OVER (PARTITION BY symbol) AS volume_after,
             maxIf(pvolume, time < end) OVER (PARTITION BY symbol) AS volume_before
      FROM ticks WHERE time < end + 60)
WHERE volume_after > volume_before OR NOT {traded:Bool}
GROUP BY symbol
HAVING countIf(time >= end) > 0
