-- Whether a tick of a frame up to the closed frame `until` was stored after `since` (of an earlier day too): the range of stored_at
-- in each granule answers for all but the newest.
WITH toDateTime({until:Int64}, 'Asia/Shanghai') AS closed, toHour(closed) * 60 + toMinute(closed) AS minute
SELECT 1 FROM ticks
WHERE stored_at > toDateTime64({since:Float64}, 6, 'Asia/Shanghai')
  AND time < closed + multiIf(minute = 690, 5400, minute = 900, 300, 0)
LIMIT 1 SETTINGS final = 0
