-- Median and 99th percentile of the feed's delay (exchange time to callback, ms) by minute, live ticks only.
SELECT formatDateTime(toStartOfMinute(time), '%H:%i', 'Asia/Shanghai') AS label, quantile(0.5)(ms) AS p50, quantile(0.99)(ms) AS p99
FROM (
  SELECT time, toUnixTimestamp64Milli(received_at) - toUnixTimestamp64Milli(time) AS ms FROM ticks
  WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND frame_i BETWEEN 1 AND 239
    AND abs(ms) < 3600000 AND bitAnd(flags, 64) = 0)
GROUP BY label ORDER BY label
