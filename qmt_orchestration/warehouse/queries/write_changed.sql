-- Write the rows that are new, or differ in any column (the carry too) from what the table holds of the frames first … last.
INSERT INTO {table:Identifier}
SELECT n.* EXCEPT content, {version:UInt64}
FROM (SELECT *, cityHash64(*) AS content FROM ($rows)) AS n
LEFT ANTI JOIN (
    SELECT symbol, frame, cityHash64(* EXCEPT version) AS content FROM {table:Identifier} FINAL
    WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
) AS old ON n.symbol = old.symbol AND n.frame = old.frame AND n.content = old.content
SETTINGS final = 0, optimize_aggregation_in_order = 1  -- FINAL stands where it is needed
