-- The market was never silent for long inside the session (09:30 to 11:30, 13:00 to 14:57, up to the window's end): the longest
-- pause between two consecutive seconds that carry a tick of any symbol, the ends of the session counted.
-- measure: seconds of the longest pause
WITH
  toDateTime({day:Date}, 'Asia/Shanghai') AS midnight,
  least(toUInt32({last:DateTime('Asia/Shanghai')}) - toUInt32(midnight), 53820) AS until,
  ticking AS (
    SELECT DISTINCT toUInt32(toDateTime(time)) - toUInt32(midnight) AS s FROM ticks
    WHERE time >= midnight + 34200 AND time < midnight + 53820
  ),
  morning AS (
    SELECT arraySort(arrayConcat([34200, least(until, 41400)], groupArrayIf(s, s <= least(until, 41400)))) AS a FROM ticking
  ),
  afternoon AS (
    SELECT if(until <= 46800, [], arraySort(arrayConcat([46800, until], groupArrayIf(s, s >= 46800 AND s <= until)))) AS a FROM ticking
  ),
  pauses AS (
    SELECT arrayJoin(arrayMap((from_, to_) -> (to_ - from_, from_, to_), arrayPopBack(a), arrayPopFront(a))) AS p
    FROM (SELECT a FROM morning UNION ALL SELECT a FROM afternoon WHERE notEmpty(a))
  )
SELECT
  toFloat64(max(p.1)) AS measure,
  'ticks throughout the session' AS expected,
  concat('longest pause ', toString(max(p.1)), ' s, from ', formatDateTime(midnight + argMax(p.2, p.1), '%H:%i:%S', 'Asia/Shanghai')) AS found,
  toJSONString(arrayMap(x -> map('from', formatDateTime(midnight + x.2, '%H:%i:%S', 'Asia/Shanghai'),
      'to', formatDateTime(midnight + x.3, '%H:%i:%S', 'Asia/Shanghai'), 'seconds', toString(x.1)),
    arraySlice(arrayReverseSort(x -> x.1, groupArrayIf(p, p.1 > 10)), 1, 10))) AS worst
FROM pauses
