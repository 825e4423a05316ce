-- The newest minute that stands in bars_1m (1970-01-01 when there is none).
SELECT max(frame) AS frame FROM bars_1m SETTINGS final = 0
