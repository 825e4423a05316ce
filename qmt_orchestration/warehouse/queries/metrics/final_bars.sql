-- The newest frame in each table of bars, from the parts' own bounds: no row is read.
SELECT substring(table, 6) AS period, toUnixTimestamp(max(max_time)) AS frame
FROM system.parts
WHERE active AND database = {db:String} AND startsWith(table, 'bars_') AND max_time > toDateTime(0)
GROUP BY period
