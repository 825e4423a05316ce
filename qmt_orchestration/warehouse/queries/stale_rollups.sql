-- Days whose minutes were made final after the rollup of {period} (Nm) was made: day, the first and last frame concerned.
-- A run that died between the two is found here. Minutes whose window has not closed are not waited for.
WITH
    toUInt16(replaceOne({period:String}, 'm', '')) AS n,
    toHour(frame) * 60 + toMinute(frame) AS minute,
    greatest(if(minute <= 690, minute - 570, minute - 660), 1) AS i
SELECT f.day, min(f.frame), max(f.frame), count()
FROM (
    SELECT day, frame, changed, least(intDiv(i + n - 1, n) * n, 240) AS end_i, max(i) OVER (PARTITION BY day) AS newest_i
    FROM final_frames
) AS f
LEFT JOIN (SELECT day, version FROM rolled_up WHERE period = {period:String}) AS r ON f.day = r.day
WHERE f.changed > r.version AND f.end_i <= f.newest_i
GROUP BY f.day
ORDER BY f.day
