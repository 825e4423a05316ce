-- The newest change of a day's final minutes, read before a rollup of them.
SELECT max(changed) FROM final_frames WHERE day = {day:Date}
