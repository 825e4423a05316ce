-- Minute bars of a day whose row by this version says something else than the first edition's.
SELECT count() FROM (
    SELECT 1 FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
    GROUP BY symbol, frame
    HAVING max(version) = {version:UInt64} AND uniqExact(open, high, low, close, vol, amount, source, ticks, quality_score) > 1
)
SETTINGS final = 0
