-- The frames of a day that were made final.
SELECT frame FROM final_frames WHERE day = {day:Date} ORDER BY frame
