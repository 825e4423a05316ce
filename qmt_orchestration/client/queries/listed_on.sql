-- Listed instruments of the day's list, else of the newest one before it, else of the oldest there is.
SELECT toString(symbol), toString(board) FROM instruments FINAL
WHERE listed AND day = (SELECT if(countIf(day <= {day:Date}) > 0, maxIf(day, day <= {day:Date}), min(day)) FROM instruments)
ORDER BY symbol
