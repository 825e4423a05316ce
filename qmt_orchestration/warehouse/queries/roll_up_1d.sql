-- The daily row of each symbol (frame = 15:00), the best there is, in this order:
--   1 the day's own values in its last tick before 15:05, if the symbol was seen at the close or QMT gave nothing (live)
--   2 QMT's daily bar (history)
--   3 the day's minute bars, where QMT's minutes are among them (history)
--   4 no trade: one row at the previous close with volume 0 (filled), marked when phase or instrument list say suspended
-- ticks and quality_score are those of the day's minute bars.
-- Growth after 15:05 (fixed-price trading) stands in after_hours_*, never in vol.
INSERT INTO {table:Identifier} (symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score, version,
                     pre_close, after_hours_vol, after_hours_amount, suspended)
WITH
    toDateTime({day:Date}, 'Asia/Shanghai') + 54000 AS close_time,
    seen AS (
        SELECT symbol, maxIf(day_open, frame <= close_time) AS o, maxIf(day_high, frame <= close_time) AS h,
               minIf(day_low, frame <= close_time) AS l, argMaxMergeIf(last_price, frame <= close_time) AS c,
               maxIf(cum_volume, frame <= close_time) AS v, round(maxIf(cum_amount, frame <= close_time), 4) AS a,
               max(cum_volume) - v AS after_v, round(max(cum_amount) - a, 4) AS after_a,
               argMinMergeIf(first_price, frame <= close_time) AS opening,
               max(s.pre_close) AS pre, max(s.suspended) AS halted, max(last_time) AS newest
        FROM bar_states_1m AS s WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
        GROUP BY symbol
    ),
    theirs AS (SELECT symbol, open AS o, high AS h, low AS l, close AS c, vol AS v, amount AS a FROM qmt_bars FINAL
               WHERE period = '1d' AND toDate(frame) = {day:Date} AND vol > 0),
    minutes AS (
        SELECT symbol, argMin(open, frame) AS o, max(high) AS h, min(low) AS l, argMax(close, frame) AS c, sum(vol) AS v,
               round(sum(amount), 4) AS a, toUInt32(sum(m.ticks)) AS n, min(quality_score) AS score, countIf(source = 'history') AS theirs
        FROM bars_1m AS m FINAL WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
        GROUP BY symbol
    ),
    listed AS (SELECT symbol, i.pre_close AS pre, i.suspended AS halted FROM instruments AS i FINAL WHERE day = {day:Date}),
    candidate AS (
        SELECT symbol, if(newest >= close_time, 1, 4) AS rank, if(o > 0, o, opening) AS open, h AS high, l AS low, c AS close, v AS vol, a AS amount,
               'live' AS source, 0 AS ticks, 1 AS quality_score, pre AS pre_close, after_v AS after_hours_vol, after_a AS after_hours_amount,
               0::UInt8 AS suspended
        FROM seen WHERE v > 0
        UNION ALL
        SELECT symbol, 2, o, h, l, c, v, a, 'history', 0, 1, 0., 0, 0., 0 FROM theirs
        UNION ALL
        SELECT symbol, 3, o, h, l, c, v, a, 'history', 0, 1, 0., 0, 0., 0 FROM minutes WHERE theirs > 0
        UNION ALL
        SELECT symbol, 5, pre, pre, pre, pre, 0, 0., 'filled', 0, 1, pre, 0, 0., halted FROM seen WHERE v = 0 AND pre > 0
        UNION ALL
        SELECT symbol, 6, pre, pre, pre, pre, 0, 0., 'filled', 0, 1, pre, 0, 0., 1 FROM listed WHERE halted AND pre > 0
    ),
    chosen AS (SELECT * FROM candidate ORDER BY symbol, rank LIMIT 1 BY symbol),
    bar AS (
        SELECT c.symbol AS symbol, close_time AS frame, c.open AS open, c.high AS high, c.low AS low, c.close AS close,
               toInt64(c.vol) AS vol, c.amount AS amount, CAST(c.source, 'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source,
               minutes.n AS ticks, toFloat32(if(minutes.n > 0, minutes.score, c.quality_score)) AS quality_score,
               multiIf(c.pre_close > 0, c.pre_close, listed.pre) AS pre_close, toInt64(c.after_hours_vol) AS after_hours_vol,
               c.after_hours_amount AS after_hours_amount, toUInt8(c.suspended OR (c.vol = 0 AND listed.halted)) AS suspended
        FROM chosen AS c LEFT JOIN listed ON c.symbol = listed.symbol LEFT JOIN minutes ON c.symbol = minutes.symbol
    )
SELECT b.symbol, b.frame, b.open, b.high, b.low, b.close, b.vol, b.amount, b.source, b.ticks, b.quality_score, {version:UInt64},
       b.pre_close, b.after_hours_vol, b.after_hours_amount, b.suspended
FROM bar AS b
LEFT JOIN (
    SELECT symbol, version, (open, high, low, close, vol, amount, source, ticks, quality_score, pre_close, after_hours_vol,
                             after_hours_amount, suspended) AS content
    FROM {table:Identifier} FINAL WHERE toDate(frame) = {day:Date}
) AS e ON b.symbol = e.symbol
WHERE e.version = 0 OR (b.open, b.high, b.low, b.close, b.vol, b.amount, b.source, b.ticks, b.quality_score, b.pre_close,
                        b.after_hours_vol, b.after_hours_amount, b.suspended) != e.content
SETTINGS final = 0  -- FINAL stands where it is needed; states are merged by the query itself
