-- Write the rows of the frames first … last, of which the table has none: nothing to compare, so the cost does not grow with the day.
INSERT INTO {table:Identifier}
SELECT *, {version:UInt64} FROM ($rows)
SETTINGS final = 0, optimize_aggregation_in_order = 1  -- FINAL stands where it is needed
