-- The columns of bars_1m as it stands.
SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'bars_1m'
