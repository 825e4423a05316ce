-- The account of one feed session: rows stored, distinct ticks among them, ticks rejected. A tick that was withdrawn (flag 128: its key
-- was published again) counts as neither stored nor distinct: it is among the rejected.
-- Read without FINAL, so that a tick stored twice is seen as two rows.
WITH withdrawn_keys AS (
    SELECT symbol, time, volume, pvolume, amount FROM ticks WHERE session = {session:String} AND bitAnd(flags, 128) != 0
)
SELECT
    count() AS stored,
    uniqExact(symbol, time, volume, pvolume, amount) AS distinct_ticks,
    (SELECT count() FROM ticks_rejected WHERE session = {session:String}) AS rejected
FROM ticks
WHERE session = {session:String} AND (symbol, time, volume, pvolume, amount) NOT IN withdrawn_keys
SETTINGS final = 0
