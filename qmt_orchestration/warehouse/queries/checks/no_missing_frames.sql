-- From its first trade on, each symbol has every minute of the calendar up to the window's end: 09:30, 09:31 … 11:30, 13:01 … 15:00.
-- The first trade is that of the ticks where they exist, else the first bar.
-- measure: share of the expected bars that are missing
WITH
  arrayFilter(f -> f <= {last:DateTime('Asia/Shanghai')},
    arrayMap(m -> toDateTime({day:Date}, 'Asia/Shanghai') + m * 60, arrayConcat(range(570, 691), range(781, 901)))) AS calendar,
  have AS (
    SELECT symbol, groupUniqArray(frame) AS frames, min(frame) AS first_bar
    FROM bars_1m WHERE toDate(frame) = {day:Date} AND frame <= {last:DateTime('Asia/Shanghai')} GROUP BY symbol
  ),
  traded AS (
    SELECT symbol, min(frame) AS first_trade FROM bar_states_1m
    WHERE toDate(frame) = {day:Date} AND cum_volume > 0 AND frame <= {last:DateTime('Asia/Shanghai')} GROUP BY symbol
  ),
  gaps AS (
    SELECT symbol,
           if(t.first_trade > toDateTime(0, 'Asia/Shanghai') AND (h.first_bar = toDateTime(0, 'Asia/Shanghai') OR t.first_trade < h.first_bar),
              t.first_trade, h.first_bar) AS since,
           arrayFilter(f -> f >= since, calendar) AS wanted,
           arrayFilter(f -> NOT has(h.frames, f), wanted) AS missing
    FROM have AS h FULL OUTER JOIN traded AS t USING (symbol)
  )
SELECT
  if(sum(length(wanted)) = 0, 0., sum(length(missing)) / sum(length(wanted))) AS measure,
  concat(toString(sum(length(wanted))), ' bars') AS expected,
  concat(toString(sum(length(missing))), ' missing, of ', toString(countIf(notEmpty(missing))), ' symbols') AS found,
  toJSONString(arrayMap(x -> map('symbol', toString(x.2), 'missing', toString(x.1), 'first', toString(x.3), 'last', toString(x.4)),
    arraySlice(arrayReverseSort(x -> x.1, groupArrayIf((length(missing), symbol, missing[1], missing[-1]), notEmpty(missing))), 1, 20))) AS worst
FROM gaps
