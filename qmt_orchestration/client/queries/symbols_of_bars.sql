-- Symbols with bars between two times.
SELECT DISTINCT toString(symbol) AS symbol FROM {table:Identifier}
WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
ORDER BY symbol
SETTINGS final = 0
