-- The newest frame of a day in bars_1m (1970-01-01 when it has none).
SELECT max(frame) AS newest FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) SETTINGS final = 0
