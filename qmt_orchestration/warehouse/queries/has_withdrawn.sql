-- Whether a day holds withdrawn ticks (the range of `flags` in each granule answers for most days).
SELECT 1 FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND flags >= 128 AND withdrawn LIMIT 1 SETTINGS final = 0
