-- From its first trade on, each symbol has every minute of the calendar up to the window's end.
-- The first trade is that of the ticks of the window's frames where they come before the first bar, else the first bar: a minute's run
-- looks at its own ticks, the day's last run at all.
-- measure: share of the expected bars that are missing
WITH
  (SELECT arraySort(groupArray(frame)) FROM trading_minutes(day = {day:Date}) WHERE frame <= {last:DateTime('Asia/Shanghai')}) AS calendar,
  (SELECT (min(begins), max(ends)) FROM trading_minutes(day = {day:Date})
   WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}) AS span,
  have AS (
    SELECT symbol, count() AS bars, min(frame) AS first_bar, groupArray(frame) AS frames FROM bars_1m
    WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) AND frame <= {last:DateTime('Asia/Shanghai')} GROUP BY symbol
  ),
  traded AS (
    SELECT symbol, calendar[min(frame_i) + 1] AS first_trade FROM ticks
    WHERE time >= span.1 AND time < span.2 AND bucket >= span.1 - toIntervalMinute(15) AND bucket < span.2
      AND traded AND frame_i < length(calendar) GROUP BY symbol
  ),
  due AS (
    SELECT symbol, h.frames AS frames,
           if(t.first_trade > toDateTime(0, 'Asia/Shanghai') AND (h.first_bar = toDateTime(0, 'Asia/Shanghai') OR t.first_trade < h.first_bar),
              t.first_trade, h.first_bar) AS since,
           toInt64(arrayCount(f -> f >= since, calendar)) AS wanted,
           if(h.bars < wanted, arrayFilter(f -> f >= since AND NOT has(frames, f), calendar), []) AS missing
    FROM have AS h FULL OUTER JOIN traded AS t USING (symbol)
  ),
  -- symbols that lack the same minutes are one finding: an outage of the market must not hide a symbol of its own trouble
  alike AS (
    SELECT missing, sum(wanted) AS wanted, count() AS n, length(missing) AS minutes,
           concat(arrayStringConcat(arraySlice(arraySort(groupArray(toString(symbol))), 1, 3), ', '),
                  if(n > 3, concat(' and ', toString(n - 3), ' others'), '')) AS named
    FROM due GROUP BY missing
  ),
  arraySort(groupArrayIf((n, minutes, named, missing[1], missing[-1]), minutes > 0)) AS groups,
  arraySlice(arrayReverseSort(x -> x.1 * x.2, arrayFilter(x -> x.1 > 20, groups)), 1, 2) AS largest
SELECT
  if(sum(wanted) = 0, 0., sum(n * minutes) / sum(wanted)) AS measure,
  concat(toString(sum(wanted)), ' bars') AS expected,
  concat(toString(sum(n * minutes)), ' missing, of ', toString(sumIf(n, minutes > 0)), ' symbols') AS found,
  toJSONString(arrayMap(x -> map('symbol', x.3, 'missing', toString(x.2), 'first', toString(x.4), 'last', toString(x.5)),
    arraySlice(arrayConcat(largest, arrayReverseSort(x -> x.2, arrayFilter(x -> NOT has(largest, x), groups))), 1, 20))) AS worst
FROM alike
