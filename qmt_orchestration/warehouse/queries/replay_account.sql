-- The account of one feed session: rows stored, distinct ticks among them, ticks set aside.
-- Read without FINAL, so that a tick stored twice is seen as two rows.
SELECT
    count() AS stored,
    uniqExact(symbol, time, volume, pvolume, amount) AS distinct_ticks,
    (SELECT count() FROM ticks_rejected WHERE session = {session:String}) AS rejected
FROM ticks
WHERE session = {session:String}
SETTINGS final = 0
