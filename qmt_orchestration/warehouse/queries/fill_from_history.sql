-- Repair a day's gaps from QMT's own minute bars, marked as history: minutes that bars_1m lacks, and those where our rule has nothing
-- better (no snapshot seen, or a gap in the minute) although QMT saw trades. Minutes that differ otherwise are never overwritten.
-- QMT's rows before a symbol's first trade of the day are not bars.
INSERT INTO bars_1m (symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score, version)
WITH
    q AS (
        SELECT *, sum(vol) OVER (PARTITION BY symbol ORDER BY frame) AS so_far
        FROM qmt_bars FINAL WHERE period = '1m' AND toDate(frame) = {day:Date}
    ),
    gaps AS (
        SELECT symbol, frame FROM bars_1m_live(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')})
        WHERE gap
    ),
    e AS (SELECT symbol, frame, version, source, ticks FROM bars_1m FINAL WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}))
SELECT q.symbol, q.frame, q.open, q.high, q.low, q.close, q.vol, q.amount, 'history', 0, 1, {version:UInt64}
FROM q LEFT JOIN e ON q.symbol = e.symbol AND q.frame = e.frame
WHERE q.so_far > 0
  AND (e.version = 0
       OR (q.vol > 0 AND e.source != 'history' AND ((e.source = 'filled' AND e.ticks = 0) OR (q.symbol, q.frame) IN (SELECT symbol, frame FROM gaps))))
