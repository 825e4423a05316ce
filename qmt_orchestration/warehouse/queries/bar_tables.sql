-- Tables of stored bars and views of adjusted ones.
SELECT name FROM system.tables
WHERE database = currentDatabase()
  AND (match(name, '^bars_([0-9]+m|1d|1w|1mo)$') OR name IN ('daily_bars_front', 'daily_bars_back'))
