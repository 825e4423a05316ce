-- Delay of the feed: exchange time of a snapshot to its callback here, over ticks received within the hour (others come from a
-- recording or a simulated market and tell nothing of the feed). The first push of a subscription is a snapshot of old ticks and
-- is left out (TickFlag.SNAPSHOT = 64), and so is the time outside the session.
-- measure: 99th percentile, ms
WITH d AS (
  SELECT toUnixTimestamp64Milli(received_at) - toUnixTimestamp64Milli(time) AS ms, symbol FROM ticks
  WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND frame_i BETWEEN 1 AND 239
    AND abs(toUnixTimestamp64Milli(received_at) - toUnixTimestamp64Milli(time)) < 3600000 AND bitAnd(flags, 64) = 0
)
SELECT
  if(count() = 0, 0., greatest(quantile(0.99)(ms), 0.)) AS measure,
  'live ticks in time' AS expected,
  if(count() = 0, 'no live ticks: the day is a recording or simulated',
     concat('p50 ', toString(round(quantile(0.5)(ms))), ' ms, p99 ', toString(round(quantile(0.99)(ms))), ' ms of ', toString(count()), ' ticks')) AS found,
  toJSONString(arrayMap(x -> map('symbol', toString(x.2), 'p99_ms', toString(x.1)),
    (SELECT arraySlice(arrayReverseSort(x -> x.1, groupArray((p, symbol))), 1, 20) FROM (SELECT symbol, round(quantile(0.99)(ms)) AS p FROM d GROUP BY symbol)))) AS worst
FROM d
