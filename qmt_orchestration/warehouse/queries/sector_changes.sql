-- Members of each sector of a day that joined and left since the sector's day before; a sector's first day has no changes.
WITH (SELECT groupArray((sector, before)) FROM (SELECT sector, max(day) AS before FROM sector_members WHERE day < {day:Date} GROUP BY sector)) AS befores
SELECT sector, countIf(day = {day:Date}) AS members, before,
       arraySort(groupArrayIf(symbol, day = {day:Date})) AS now, arraySort(groupArrayIf(symbol, day < {day:Date})) AS earlier,
       if(before = toDate(0), [], arrayFilter(s -> NOT has(earlier, s), now)) AS joined,
       if(before = toDate(0), [], arrayFilter(s -> NOT has(now, s), earlier)) AS left_it
FROM (SELECT toString(sector) AS sector, day, toString(symbol) AS symbol, arrayFirst(b -> b.1 = sector, befores).2 AS before FROM sector_members FINAL
      WHERE (day = {day:Date}) OR (toString(sector), day) IN (SELECT toString(sector), max(day) FROM sector_members WHERE day < {day:Date} GROUP BY sector))
GROUP BY sector, before
HAVING members > 0
ORDER BY sector
