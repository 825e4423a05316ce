-- Bars of weeks or months made from daily bars, by the rule of the stored ones: the label is the 15:00 of the period's last stored
-- day (of the market), prices are those of the days with trades. The current period is there as far as it has come.
WITH {unit:String} = '1w' AS weeks,
     labels AS (SELECT if(weeks, toMonday(frame), toStartOfMonth(frame)) AS period, max(frame) AS label FROM bars_1d
                WHERE toDate(frame) >= {first_day:Date} AND toDate(frame) <= {last_day:Date} GROUP BY period)
SELECT b.symbol AS symbol, any(l.label) AS frame, if(max(b.vol) > 0, argMinIf(b.open, b.day, b.vol > 0), argMax(b.close, b.day)) AS open,
       if(max(b.vol) > 0, maxIf(b.high, b.vol > 0), argMax(b.close, b.day)) AS high,
       if(max(b.vol) > 0, minIf(b.low, b.vol > 0), argMax(b.close, b.day)) AS low, argMax(b.close, b.day) AS close,
       sum(b.vol) AS vol, round(sum(b.amount), 4) AS amount,
       multiIf(countIf(b.source = 'history') > 0, 'history', countIf(b.source = 'live') > 0, 'live', 'filled') AS source,
       toUInt32(sum(b.ticks)) AS ticks, min(b.quality_score) AS quality_score, argMin(b.pre_close, b.day) AS pre_close, min(b.suspended) AS suspended
FROM (
    SELECT toString(d.symbol) AS symbol, d.frame AS day, if(weeks, toMonday(d.frame), toStartOfMonth(d.frame)) AS period, open, high, low, close,
           vol + if({after_hours:UInt8}, after_hours_vol, 0) AS vol, amount + if({after_hours:UInt8}, after_hours_amount, 0) AS amount,
           source, d.ticks AS ticks, quality_score, pre_close, suspended
    FROM bars_1d AS d FINAL
    WHERE toDate(d.frame) >= {first_day:Date} AND toDate(d.frame) <= {last_day:Date}
      AND (empty({symbols:Array(String)}) OR d.symbol IN {symbols:Array(String)})
) AS b INNER JOIN labels AS l ON b.period = l.period
GROUP BY b.symbol, b.period
HAVING frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
ORDER BY symbol, frame
