-- Days whose minutes were made final after the rollup of {period} was made: day, the first and last frame concerned.
-- A run that died between the two is found here.
SELECT day, min(f.frame), max(f.frame), count()
FROM final_frames AS f
LEFT JOIN (SELECT day, version FROM rolled_up WHERE period = {period:String}) AS r ON f.day = r.day
WHERE f.changed > r.version
GROUP BY day
ORDER BY day
