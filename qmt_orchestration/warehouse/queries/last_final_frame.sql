-- The newest minute of a day that stands in bars_1m (1970-01-01 when there is none).
SELECT max(frame) AS newest FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) SETTINGS final = 0
