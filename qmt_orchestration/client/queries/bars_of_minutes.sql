-- Bars of N trading minutes made from minute bars, by the rule of the stored rollups: the label is the end, 09:30 joins the first
-- window, the break does not count, a window is there when its last minute is.
WITH {minutes:UInt16} AS n, (SELECT max(frame) FROM bars_1m) AS newest
SELECT symbol, label AS frame, argMin(b.open, b.frame) AS open, max(b.high) AS high, min(b.low) AS low, argMax(b.close, b.frame) AS close,
       sum(b.vol) AS vol, round(sum(b.amount), 4) AS amount,
       multiIf(countIf(b.source = 'history') > 0, 'history', countIf(b.source = 'live') > 0, 'live', 'filled') AS source,
       toUInt32(sum(b.ticks)) AS ticks, min(b.quality_score) AS quality_score
FROM (
    SELECT toString(m.symbol) AS symbol, frame, open, high, low, close, vol, amount, source, m.ticks AS ticks, quality_score,
           greatest(toHour(frame) * 60 + toMinute(frame) - if(toHour(frame) < 12, 570, 660), 1) AS i,
           least((intDiv(i + n - 1, n)) * n, 240) AS end_i,
           toStartOfDay(frame) + (end_i + if(end_i <= 120, 570, 660)) * 60 AS label
    FROM bars_1m AS m FINAL
    WHERE toDate(frame) >= {first_day:Date} AND toDate(frame) <= {last_day:Date}
      AND (empty({symbols:Array(String)}) OR m.symbol IN {symbols:Array(String)})
) AS b
WHERE label >= {first:DateTime('Asia/Shanghai')} AND label <= {last:DateTime('Asia/Shanghai')} AND (label <= newest OR toDate(label) < toDate(newest))
GROUP BY symbol, label
ORDER BY symbol, label
