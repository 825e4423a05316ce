-- Members of a sector by its newest list of the day or before it.
SELECT toString(symbol) FROM sector_members FINAL
WHERE sector = {sector:String} AND day = (SELECT max(day) FROM sector_members WHERE sector = {sector:String} AND day <= {day:Date})
ORDER BY symbol
