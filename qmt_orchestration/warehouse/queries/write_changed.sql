-- Write the rows that are new, or differ in any column (the carry too) from what the table holds of the frames first … last. The hash is
-- over all columns, the symbol's too.
INSERT INTO {table:Identifier}
SELECT * EXCEPT content, {version:UInt64}
FROM (SELECT *, cityHash64(*) AS content FROM ($rows))
WHERE (frame, content) NOT IN (
    SELECT frame, cityHash64(* EXCEPT version) FROM {table:Identifier} FINAL
    PREWHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
)
SETTINGS final = 0, optimize_aggregation_in_order = 1  -- FINAL stands where it is needed
