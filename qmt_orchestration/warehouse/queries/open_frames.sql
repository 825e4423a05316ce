-- The 241 frames of a day: frame, whether final, whether a tick was stored after its ticks were read for that, whether one was
-- stored just before (it may have become visible after the reading: such a frame is computed with the next), `changed`.
-- Ticks stored more than a minute before the day's newest reading were looked at by it.
WITH
    f AS (SELECT * FROM final_frames FINAL WHERE day = {day:Date}),
    (SELECT if(count() = 0, now64(6) + 1e9, max(read_at) - 60) FROM f) AS since,
    stored AS (
        SELECT frame_i AS i, max(stored_at) AS newest FROM ticks
        WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND stored_at > since GROUP BY i
    )
SELECT m.frame AS frame, f.version > 0 AS is_final, s.newest > f.read_at AS reopened, s.newest > f.read_at - 5 AS settling, f.changed AS changed
FROM trading_minutes(day = {day:Date}) AS m LEFT JOIN stored AS s ON m.i = s.i LEFT JOIN f ON m.frame = f.frame
ORDER BY frame
SETTINGS final = 0
