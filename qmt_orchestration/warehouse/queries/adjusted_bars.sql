-- Adjusted daily bars of some symbols between two days, with the factor applied to the prices.
SELECT toString(b.symbol) AS symbol, frame, open, high, low, close, vol, amount, toString(b.source) AS source, factor
FROM {table:Identifier} AS b
WHERE b.symbol IN {symbols:Array(String)}
  AND frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
ORDER BY symbol, frame
