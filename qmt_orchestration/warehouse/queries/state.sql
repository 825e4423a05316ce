-- The newest final minute of the market's day (1970-01-01: none), and whether the day's instruments are stored.
SELECT
    (SELECT max(frame) FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})) AS final,
    (SELECT count() FROM instruments WHERE day = {day:Date}) AS instruments
SETTINGS final = 0
