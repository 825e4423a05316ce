-- The daily row of each symbol (frame = 15:00), the best there is, by rank:
--   1 the day's own values: of the last snapshot before 15:05 where one came at 15:00 or later, else of a later one (live)
--   2 QMT's daily bar (history)
--   3 as 1 where only a later snapshot was seen and after-hours trading may be in it (live)
--   4 the day's minute bars, where QMT's minutes are among them (history)   5 the day's own values so far (live)
--   6, 7 no trade: one row at the previous close with volume 0 (filled), marked when phase or instrument list say suspended
-- ticks and quality_score are those of the day's minute bars.
WITH
    minutes AS (
        SELECT symbol, argMin(m.open, m.frame) AS o, max(m.high) AS h, min(m.low) AS l, argMax(m.close, m.frame) AS c, sum(m.vol) AS v,
               round(sum(m.amount), 4) AS a, toUInt32(sum(m.ticks)) AS n, min(m.quality_score) AS score, countIf(m.source = 'history') AS theirs
        FROM bars_1m AS m FINAL WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) GROUP BY symbol
    ),
    candidate AS (
        SELECT symbol, multiIf(NOT closed, 5, alone AND after_hours, 3, 1) AS rank, open, high, low, close, vol, amount, 'live' AS source,
               pre_close, after_hours_vol, after_hours_amount, 0::UInt8 AS suspended
        FROM day_of_ticks(day = {day:Date})
        UNION ALL
        SELECT symbol, 2, open, high, low, close, vol, amount, 'history', 0., 0, 0., 0 FROM qmt_bars FINAL
        WHERE period = '1d' AND toDate(frame) = {day:Date} AND vol > 0
        UNION ALL
        SELECT symbol, 4, o, h, l, c, v, a, 'history', 0., 0, 0., 0 FROM minutes WHERE theirs > 0
        UNION ALL
        SELECT symbol, 6, pre, pre, pre, pre, 0, 0., 'filled', pre, 0, 0., halted FROM day_without_trade(day = {day:Date})
        UNION ALL
        SELECT symbol, 7, pre_close, pre_close, pre_close, pre_close, 0, 0., 'filled', pre_close, 0, 0., 1 FROM instruments FINAL
        WHERE day = {day:Date} AND suspended AND pre_close > 0
    ),
    listed AS (SELECT symbol, i.pre_close AS pre, i.suspended AS halted FROM instruments AS i FINAL WHERE day = {day:Date})
SELECT c.symbol AS symbol, {last:DateTime('Asia/Shanghai')} AS frame, if(c.open > 0, c.open, minutes.o) AS open, c.high AS high, c.low AS low,
       c.close AS close, toInt64(c.vol) AS vol, c.amount AS amount, CAST(c.source, 'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source,
       minutes.n AS ticks, toFloat32(if(minutes.n > 0, minutes.score, 1)) AS quality_score,
       if(c.pre_close > 0, c.pre_close, listed.pre) AS pre_close, toInt64(c.after_hours_vol) AS after_hours_vol,
       c.after_hours_amount AS after_hours_amount, toUInt8(c.suspended OR (c.vol = 0 AND listed.halted)) AS suspended
FROM (SELECT * FROM candidate ORDER BY symbol, rank LIMIT 1 BY symbol) AS c
LEFT JOIN listed ON c.symbol = listed.symbol LEFT JOIN minutes ON c.symbol = minutes.symbol
