-- Few ticks were rejected at ingestion. They are in ticks_rejected with their reason and payload. Withdrawn ones are among
-- them. Repeats of a tick (duplicate) are harmless and common: reported, not measured.
-- measure: share of the day's ticks that were rejected for another reason
WITH r AS (
  SELECT reason, count() AS ticks, uniqExact(symbol) AS symbols, any(detail) AS example FROM ticks_rejected
  WHERE time >= toDateTime({day:Date}, 'Asia/Shanghai') AND time < toDateTime({day:Date} + 1, 'Asia/Shanghai')
  GROUP BY reason
),
(SELECT count() FROM ticks
 WHERE NOT withdrawn AND time >= toDateTime({day:Date}, 'Asia/Shanghai') AND time < toDateTime({day:Date} + 1, 'Asia/Shanghai')) AS stored
SELECT
  sumIf(ticks, reason != 'duplicate') / greatest(sum(ticks) + stored, 1) AS measure,
  'nearly every tick accepted' AS expected,
  concat(toString(sumIf(ticks, reason != 'duplicate')), ' rejected, ', toString(sumIf(ticks, reason = 'duplicate')), ' repeats, ', toString(stored), ' stored') AS found,
  toJSONString(arrayMap(x -> map('reason', x.1, 'ticks', toString(x.2), 'symbols', toString(x.3), 'example', x.4),
    arraySlice(arrayReverseSort(x -> x.2, groupArray((toString(reason), r.ticks, symbols, example))), 1, 20))) AS worst
FROM r
