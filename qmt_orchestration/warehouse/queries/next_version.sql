-- The version of rows written now, microseconds of the server's clock, above every version of the day even if a clock went back;
-- the newest block of the day's ticks; the moment from which on a stored tick was not read; whether the day has rows from history or overrides;
-- the newest change of its final minutes; whether it has withdrawn ticks (the range of `flags` in each granule answers for most days).
SELECT greatest(toUInt64(toUnixTimestamp64Micro(now64(6))),
                (SELECT max(version) FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})) + 1,
                (SELECT max(version) FROM final_frames WHERE day = {day:Date}) + 1),
       (SELECT max(max_block_number) FROM system.parts
        WHERE database = currentDatabase() AND table = 'ticks' AND active AND partition = toString(toYYYYMMDD({day:Date}))),
       now64(6, 'Asia/Shanghai'),
       (SELECT count() > 0 FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) AND source = 'history')
         OR (SELECT count() > 0 FROM bar_overrides WHERE toDate(frame) = {day:Date}),
       (SELECT max(changed) FROM final_frames FINAL WHERE day = {day:Date}),
       (SELECT count() > 0 FROM (SELECT 1 FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND flags >= 128 AND withdrawn LIMIT 1))
SETTINGS final = 0
