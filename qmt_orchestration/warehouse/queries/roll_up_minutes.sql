-- Bars of N minutes from the minute bars of a day, for the windows that touch the frames first … last and are closed (the day's
-- minute bars reach their end, or none will come any more: day_over). Windows count trading minutes: the label is the end, 09:30 joins the first window, the break does
-- not count. source: live unless every minute was filled (filled) or any came from QMT's history (history).
INSERT INTO {table:Identifier} (symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score, version)
WITH
    {minutes:UInt16} AS n,
    toHour({first:DateTime('Asia/Shanghai')}) * 60 + toMinute({first:DateTime('Asia/Shanghai')}) AS first_minute,
    toHour({last:DateTime('Asia/Shanghai')}) * 60 + toMinute({last:DateTime('Asia/Shanghai')}) AS last_minute,
    intDiv(greatest(if(first_minute <= 690, first_minute - 570, first_minute - 660), 1) + n - 1, n) AS first_window,
    intDiv(greatest(if(last_minute <= 690, last_minute - 570, last_minute - 660), 1) + n - 1, n) AS last_window,
    (SELECT toHour(max(frame)) * 60 + toMinute(max(frame)) FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})) AS newest_minute,
    if(newest_minute <= 690, newest_minute - 570, newest_minute - 660) AS newest_i,
    minute AS (
        SELECT *, greatest(toHour(frame) * 60 + toMinute(frame) - if(toHour(frame) < 12, 570, 660), 1) AS i, intDiv(i + n - 1, n) AS window,
               least(window * n, 240) AS end_i
        FROM bars_1m FINAL
        WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) AND window >= first_window AND window <= last_window AND (end_i <= newest_i OR {day_over:UInt8})
    ),
    bar AS (
        SELECT symbol, toDateTime({day:Date}, 'Asia/Shanghai') + (end_i + if(end_i <= 120, 570, 660)) * 60 AS label,
               argMin(minute.open, minute.frame) AS open, max(minute.high) AS high, min(minute.low) AS low,
               argMax(minute.close, minute.frame) AS close, sum(minute.vol) AS vol, round(sum(minute.amount), 4) AS amount,
               CAST(multiIf(countIf(minute.source = 'history') > 0, 'history', countIf(minute.source = 'live') > 0, 'live', 'filled'),
                    'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source,
               toUInt32(sum(minute.ticks)) AS ticks, min(minute.quality_score) AS quality_score
        FROM minute GROUP BY symbol, end_i
    )
SELECT b.symbol, b.label, b.open, b.high, b.low, b.close, b.vol, b.amount, b.source, b.ticks, b.quality_score, {version:UInt64}
FROM bar AS b
LEFT JOIN (
    SELECT symbol, frame, version, (open, high, low, close, vol, amount, source, ticks, quality_score) AS content
    FROM {table:Identifier} FINAL WHERE toDate(frame) = {day:Date}
) AS e ON b.symbol = e.symbol AND b.label = e.frame
WHERE e.version = 0 OR (b.open, b.high, b.low, b.close, b.vol, b.amount, b.source, b.ticks, b.quality_score) != e.content
SETTINGS final = 0  -- FINAL stands where it is needed; states are merged by the query itself
