-- Bars of several days (week, month) from daily bars: frames first … last; the label is 15:00 of the period's last trading day.
-- Suspended days count as filled. vol and amount are without after-hours trading, as in bars_1d.
INSERT INTO {table:Identifier} (symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score, version)
SELECT symbol, {label:DateTime('Asia/Shanghai')}, argMin(d.open, d.frame), max(d.high), min(d.low), argMax(d.close, d.frame), sum(d.vol),
       round(sum(d.amount), 4), multiIf(countIf(d.source = 'history') > 0, 'history', countIf(d.source = 'live') > 0, 'live', 'filled'),
       toUInt32(sum(d.ticks)), min(d.quality_score), {version:UInt64}
FROM bars_1d AS d FINAL
WHERE d.frame >= {first:DateTime('Asia/Shanghai')} AND d.frame <= {last:DateTime('Asia/Shanghai')}
GROUP BY symbol
