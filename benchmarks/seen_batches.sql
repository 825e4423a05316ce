-- Batches not seen yet, with the callback time of their oldest tick. Read without FINAL: visibility, not uniqueness.
SELECT seq, toUnixTimestamp64Milli(min(received_at)) AS oldest_ms, count() AS rows
FROM ticks
WHERE seq > {after:Int64}
GROUP BY seq
ORDER BY seq
SETTINGS final = 0
