-- Bars of N minutes from the minute bars of a day, for the windows that touch the frames since … until and are closed (the day's
-- minute bars reach their end, or none will come any more: day_over). source: live unless every minute was filled (filled) or any
-- came from QMT's history (history).
WITH (SELECT max(frame) FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) SETTINGS final = 0) AS newest
SELECT b.symbol AS symbol, label AS frame, argMin(b.open, b.frame) AS open, max(b.high) AS high, min(b.low) AS low,
       argMax(b.close, b.frame) AS close, sum(b.vol) AS vol, round(sum(b.amount), 4) AS amount,
       CAST(multiIf(countIf(b.source = 'history') > 0, 'history', countIf(b.source = 'live') > 0, 'live', 'filled'),
            'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source,
       toUInt32(sum(b.ticks)) AS ticks, min(b.quality_score) AS quality_score
FROM bars_1m AS b FINAL
INNER JOIN (
    SELECT frame, label, max(frame >= {since:DateTime('Asia/Shanghai')} AND frame <= {until:DateTime('Asia/Shanghai')}) OVER (PARTITION BY label) AS touched
    FROM trading_windows(day = {day:Date}, minutes = {minutes:UInt16})
) AS w ON b.frame = w.frame
WHERE toYYYYMMDD(b.frame) = toYYYYMMDD({day:Date}) AND touched AND (label <= newest OR {day_over:UInt8})
GROUP BY symbol, label
