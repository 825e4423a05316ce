-- Make the frames first … last of a day final: rows of the rule that are new or differ from what stands in bars_1m.
-- A row repaired from QMT's history stays when ours has nothing better: no snapshot in that minute, or a gap in it.
INSERT INTO bars_1m (symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score, version)
SELECT r.symbol, r.frame, r.open, r.high, r.low, r.close, r.vol, r.amount, r.source, r.ticks, r.quality_score, {version:UInt64}
FROM bars_1m_live(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')}) AS r
LEFT JOIN (
    SELECT symbol, frame, version, source, (open, high, low, close, vol, amount, source, ticks, quality_score) AS content
    FROM bars_1m FINAL
    WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
      AND frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
) AS e ON r.symbol = e.symbol AND r.frame = e.frame
WHERE e.version = 0
   OR ((r.open, r.high, r.low, r.close, r.vol, r.amount, r.source, r.ticks, r.quality_score) != e.content
       AND NOT (e.source = 'history' AND (r.ticks = 0 OR r.gap)))
SETTINGS final = 0  -- FINAL stands where it is needed; states are merged by the query itself
