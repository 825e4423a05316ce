-- The newest minute of the market's day that was made final (1970-01-01: none), and how many instruments it has.
SELECT
    (SELECT max(frame) FROM final_frames WHERE day = {day:Date}) AS final,
    (SELECT count() FROM instruments WHERE day = {day:Date}) AS instruments
