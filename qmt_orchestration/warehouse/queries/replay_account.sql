-- The account of one feed session: rows stored, distinct ticks among them, ticks rejected. A tick that was withdrawn is among the
-- rejected, none of its rows among the stored. Read without FINAL, so that a tick stored twice is seen as two rows.
SELECT
    count() AS stored,
    uniqExact(symbol, time, volume, pvolume, amount) AS distinct_ticks,
    (SELECT count() FROM ticks_rejected WHERE session = {session:String}) AS rejected
FROM ticks
WHERE session = {session:String}
  AND (symbol, time, volume, pvolume, amount) NOT IN (
      SELECT symbol, time, volume, pvolume, amount FROM ticks WHERE session = {session:String} AND flags >= 128 AND withdrawn)
SETTINGS final = 0
