-- Bars of several days (week, month) from daily bars: frames since … until; the label is 15:00 of the period's last trading day.
-- Prices are those of the days with trades; a period without any repeats the last price (filled). vol and amount are without
-- after-hours trading, as in bars_1d.
SELECT symbol, {last:DateTime('Asia/Shanghai')} AS frame,
       if(countIf(d.vol > 0) > 0, argMinIf(d.open, d.frame, d.vol > 0), argMax(d.close, d.frame)) AS open,
       if(countIf(d.vol > 0) > 0, maxIf(d.high, d.vol > 0), argMax(d.close, d.frame)) AS high,
       if(countIf(d.vol > 0) > 0, minIf(d.low, d.vol > 0), argMax(d.close, d.frame)) AS low,
       argMax(d.close, d.frame) AS close, sum(d.vol) AS vol, round(sum(d.amount), 4) AS amount,
       CAST(multiIf(countIf(d.source = 'history') > 0, 'history', countIf(d.source = 'live') > 0, 'live', 'filled'),
            'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source,
       toUInt32(sum(d.ticks)) AS ticks, min(d.quality_score) AS quality_score
FROM bars_1d AS d FINAL
WHERE d.frame >= {since:DateTime('Asia/Shanghai')} AND d.frame <= {until:DateTime('Asia/Shanghai')}
GROUP BY symbol
