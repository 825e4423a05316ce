-- All columns of the bars of the frames first … last, for a processor.
SELECT toString(b.symbol) AS symbol, b.* EXCEPT (symbol, source, version), toString(source) AS source
FROM {table:Identifier} AS b FINAL
WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
ORDER BY symbol, frame
