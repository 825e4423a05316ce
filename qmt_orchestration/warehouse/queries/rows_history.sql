-- Repair a day's gaps from QMT's own minute bars, marked as history: minutes that bars_1m lacks, and those where our rule has nothing
-- better (no snapshot seen, or a gap in the minute) although QMT saw trades; and the first minute with a snapshot after such ones,
-- whose difference of cumulative volumes holds theirs too: kept, the day would count them twice. Minutes that differ otherwise are
-- never overwritten. QMT's rows before a symbol's first trade of the day are not bars. The carry is that of our ticks.
WITH
    q AS (
        SELECT *, sum(vol) OVER (PARTITION BY symbol ORDER BY frame) AS so_far
        FROM qmt_bars FINAL WHERE period = '1m' AND toDate(frame) = {day:Date}
    ),
    ours AS (
        SELECT * FROM bars_1m_live(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')})
    ),
    both AS (
        SELECT q.*, o.ticks AS seen, o.gap AS gap, cum_volume, cum_amount, day_open, day_high, day_low, o.close AS last_price, pre_close,
               -- what QMT saw traded between our last snapshot before this minute and its begin
               so_far - vol - max(if(o.ticks > 0 OR o.gap, so_far, 0)) OVER (PARTITION BY symbol ORDER BY frame ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS unseen
        FROM q LEFT JOIN ours AS o ON q.symbol = o.symbol AND q.frame = o.frame
    ),
    e AS (SELECT symbol, frame, version, source, ticks FROM bars_1m FINAL WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}))
SELECT b.symbol AS symbol, b.frame AS frame, b.open AS open, b.high AS high, b.low AS low, b.close AS close, b.vol AS vol, b.amount AS amount,
       CAST('history', 'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source, 0::UInt32 AS ticks, 1::Float32 AS quality_score,
       cum_volume, cum_amount, day_open, day_high, day_low, last_price, pre_close
FROM both AS b LEFT JOIN e ON b.symbol = e.symbol AND b.frame = e.frame
WHERE b.so_far > 0
  AND (e.version = 0
       OR (b.vol > 0 AND e.source != 'history' AND ((e.source = 'filled' AND e.ticks = 0) OR b.gap))
       OR (e.source = 'live' AND b.seen > 0 AND b.unseen > 0))
