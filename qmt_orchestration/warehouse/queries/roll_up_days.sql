-- Bars of several days (week, month) from daily bars: frames first … last; the label is 15:00 of the period's last trading day.
-- Prices are those of the days with trades; a period without any repeats the last price (filled). vol and amount are without after-hours trading, as in bars_1d.
INSERT INTO {table:Identifier} (symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score, version)
WITH bar AS (
    SELECT symbol, {label:DateTime('Asia/Shanghai')} AS label, countIf(d.vol > 0) > 0 AS traded,
           if(traded, argMinIf(d.open, d.frame, d.vol > 0), argMax(d.close, d.frame)) AS open,
           if(traded, maxIf(d.high, d.vol > 0), argMax(d.close, d.frame)) AS high,
           if(traded, minIf(d.low, d.vol > 0), argMax(d.close, d.frame)) AS low, argMax(d.close, d.frame) AS close, sum(d.vol) AS vol, round(sum(d.amount), 4) AS amount,
           CAST(multiIf(countIf(d.source = 'history') > 0, 'history', countIf(d.source = 'live') > 0, 'live', 'filled'),
                'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source,
           toUInt32(sum(d.ticks)) AS ticks, min(d.quality_score) AS quality_score
    FROM bars_1d AS d FINAL
    WHERE d.frame >= {first:DateTime('Asia/Shanghai')} AND d.frame <= {last:DateTime('Asia/Shanghai')}
    GROUP BY symbol
)
SELECT b.symbol, b.label, b.open, b.high, b.low, b.close, b.vol, b.amount, b.source, b.ticks, b.quality_score, {version:UInt64}
FROM bar AS b
LEFT JOIN (
    SELECT symbol, version, (open, high, low, close, vol, amount, source, ticks, quality_score) AS content
    FROM {table:Identifier} FINAL WHERE frame = {label:DateTime('Asia/Shanghai')}
) AS e ON b.symbol = e.symbol
WHERE e.version = 0 OR (b.open, b.high, b.low, b.close, b.vol, b.amount, b.source, b.ticks, b.quality_score) != e.content
