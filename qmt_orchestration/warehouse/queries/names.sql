-- Names of symbols, from the newest list of instruments that has them.
SELECT toString(symbol) AS symbol, argMax(name, day) AS name FROM instruments
WHERE symbol IN {symbols:Array(String)} GROUP BY symbol
