-- Days of a table of bars between two times.
SELECT DISTINCT toDate(frame) FROM {table:Identifier}
WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
SETTINGS final = 0
