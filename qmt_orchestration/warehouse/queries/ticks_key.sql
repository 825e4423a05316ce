-- The key of `ticks` as it stands, empty when there is no such table.
SELECT any(sorting_key) FROM system.tables WHERE database = currentDatabase() AND name = 'ticks'
