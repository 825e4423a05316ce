-- Frames of a day whose states differ from what was made final, in one snapshot of the states, with the market's time.
-- One row for each of the 241 frames: frame, rows_in, updated, whether final as it stands, newest tick (epoch ms), changed.
WITH
    s AS (
        SELECT frame, sum(rows_in) AS rows_in, max(updated) AS updated, max(last_time) AS last_time
        FROM bar_states_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) GROUP BY frame
    ),
    labels AS (
        SELECT toDateTime({day:Date}, 'Asia/Shanghai') + arrayJoin(arrayConcat(range(570, 691), range(781, 901))) * 60 AS frame
    ),
    f AS (SELECT frame, final_frames.rows_in AS rows_in, final_frames.updated AS updated, final_frames.changed AS changed, final_frames.version AS version FROM final_frames FINAL WHERE day = {day:Date}),
    (SELECT max(last_time) FROM s) AS newest
SELECT labels.frame AS frame, s.rows_in AS rows_in, s.updated AS updated,
       f.version > 0 AND f.rows_in = s.rows_in AND f.updated = s.updated AS is_final,
       toInt64(toUnixTimestamp64Milli(newest)) AS newest_ms, f.changed AS changed
FROM labels LEFT JOIN s ON labels.frame = s.frame LEFT JOIN f ON labels.frame = f.frame
ORDER BY frame
SETTINGS final = 0
