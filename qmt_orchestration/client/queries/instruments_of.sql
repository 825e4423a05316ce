-- The instrument list of a day, else the newest one before it, else the oldest there is (a day before the first list).
SELECT * FROM instruments FINAL
WHERE day = (SELECT if(countIf(day <= {day:Date}) > 0, maxIf(day, day <= {day:Date}), min(day)) FROM instruments)
  AND (empty({symbols:Array(String)}) OR symbol IN {symbols:Array(String)})
ORDER BY symbol
