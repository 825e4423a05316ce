-- Repair a day's episodes from QMT's own minute bars, marked as history. A frame is missed when bars_1m lacks it, when QMT saw trades
-- and we no snapshot, when a part of it was not seen (gap), or when it has few of its symbol's usual snapshots and another volume. An
-- episode is a run of missed frames and what lies around it, from the last frame with a snapshot to the first one after: the
-- minute in which an outage begins is short, the one in which it ends holds what was missed. No other minute is overwritten.
-- QMT's volumes are lots: what an episode lacks of the growth of our cumulative values goes to its last traded frame.
-- The carry and the number of snapshots are those of our ticks. QMT's rows before a symbol's first trade of the day are not bars.
WITH
    q AS (
        SELECT *, sum(vol) OVER (PARTITION BY symbol ORDER BY frame) AS so_far
        FROM qmt_bars FINAL WHERE period = '1m' AND toDate(frame) = {day:Date}
    ),
    ours AS (
        SELECT *, lagInFrame(cum_volume, 1, 0) OVER before AS volume_before, lagInFrame(cum_amount, 1, 0.) OVER before AS amount_before
        FROM bars_1m_live(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')})
        WINDOW before AS (PARTITION BY symbol ORDER BY frame ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
    ),
    e AS (SELECT symbol, frame, version FROM bars_1m FINAL WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})),
    both AS (
        SELECT q.symbol AS symbol, q.frame AS frame, q.open AS open, q.high AS high, q.low AS low, q.close AS close, q.vol AS vol, q.amount AS amount,
               o.ticks AS ticks, o.cum_volume AS cum_volume, o.cum_amount AS cum_amount, o.day_open AS day_open, o.day_high AS day_high,
               o.day_low AS day_low, o.close AS last_price, o.pre_close AS pre_close, volume_before, amount_before, cum_volume > 0 AS known, ticks > 0 OR o.gap AS touched,
               abs(vol - o.vol) > 100 OR greatest(abs(open - o.open), abs(high - o.high), abs(low - o.low), abs(close - o.close)) > 1e-4 AS differs,
               median(o.ticks) OVER (PARTITION BY symbol) AS usual, usual >= 6 AND 3 * ticks < 2 * usual AND abs(vol - o.vol) > 100 AS thin,
               multiIf(NOT known, e.version = 0, NOT touched, vol > 0, o.gap OR thin) AS missed
        FROM q LEFT JOIN ours AS o ON q.symbol = o.symbol AND q.frame = o.frame LEFT JOIN e ON q.symbol = e.symbol AND q.frame = e.frame
        WHERE so_far > 0
    ),
    -- the number of frames with a snapshot up to this one, and from it on
    counted AS (
        SELECT *, sum(touched) OVER (PARTITION BY symbol ORDER BY frame) AS up_to, sum(touched) OVER (PARTITION BY symbol ORDER BY frame DESC) AS from_it FROM both
    ),
    taken AS (
        SELECT *, max(missed) OVER (PARTITION BY symbol ORDER BY up_to RANGE BETWEEN 1 PRECEDING AND CURRENT ROW)
                  OR max(missed) OVER (PARTITION BY symbol ORDER BY from_it RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) AS near,
               max(missed AND NOT touched) OVER (PARTITION BY symbol, from_it) AS missed_before,
               missed OR (known AND (missed_before OR (near AND differs))) AS is_taken, touched AND NOT is_taken AS whole
        FROM counted
    ),
    -- an episode: the frames after one that is whole, up to the next one
    episodes AS (SELECT *, sum(whole) OVER (PARTITION BY symbol ORDER BY frame) AS episode FROM taken),
    summed AS (
        SELECT *, toInt64(max(cum_volume) OVER w - minIf(volume_before, NOT whole) OVER w - sumIf(vol, NOT whole) OVER w) AS lacks,
               max(cum_amount) OVER w - minIf(amount_before, NOT whole) OVER w - sumIf(amount, NOT whole) OVER w AS lacks_amount,
               abs(lacks) <= 100 * (sum(vol > 0) OVER w + 1) AND maxIf(frame, touched) OVER w >= maxIf(frame, missed) OVER w AS ends,
               is_taken AND vol > 0 AND vol + lacks > 0 AND amount + lacks_amount > 0 AS can_hold
        FROM episodes WINDOW w AS (PARTITION BY symbol, episode)
    ),
    placed AS (SELECT *, ends AND can_hold AND frame = maxIf(frame, can_hold) OVER (PARTITION BY symbol, episode) AS holds FROM summed)
SELECT symbol, frame, open, high, low, close, toInt64(vol + if(holds, lacks, 0)) AS vol, round(amount + if(holds, lacks_amount, 0.), 4) AS amount,
       CAST('history', 'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source, toUInt32(ticks) AS ticks, 1::Float32 AS quality_score,
       cum_volume, cum_amount, day_open, day_high, day_low, last_price, pre_close
FROM placed
WHERE is_taken AND (symbol, frame) NOT IN (SELECT symbol, frame FROM bar_overrides WHERE toDate(frame) = {day:Date} GROUP BY symbol, frame HAVING argMax(active, at) = 1)
