-- Symbols and names of the newest instrument list; without one, the symbols that have bars.
WITH (SELECT max(day) FROM instruments) AS newest
SELECT toString(symbol) AS symbol, name, toString(board) AS board FROM instruments WHERE day = newest AND listed
UNION ALL
SELECT DISTINCT toString(symbol), '', '' FROM bars_1m WHERE (SELECT count() FROM instruments) = 0
ORDER BY symbol
