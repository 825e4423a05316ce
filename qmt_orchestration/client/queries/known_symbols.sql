-- Every symbol of which there is an instrument or a bar; of ticks, those of the newest day.
SELECT DISTINCT toString(symbol) AS symbol FROM (
    SELECT symbol FROM instruments WHERE day >= (SELECT max(day) FROM instruments) - 400
    UNION ALL SELECT symbol FROM bars_1d
    UNION ALL SELECT symbol FROM bars_1m WHERE frame >= toStartOfDay((SELECT max(frame) FROM bars_1m))
    UNION ALL SELECT symbol FROM ticks WHERE time >= toStartOfDay((SELECT max(time) FROM ticks))
)
ORDER BY symbol
SETTINGS final = 0
