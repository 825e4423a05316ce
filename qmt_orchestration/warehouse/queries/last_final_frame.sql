-- The newest minute of a day that was made final (1970-01-01 when there is none).
SELECT max(frame) AS newest FROM final_frames WHERE day = {day:Date}
