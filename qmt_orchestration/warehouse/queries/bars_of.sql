-- Bars of some symbols between two frames.
SELECT toString(b.symbol) AS symbol, frame, open, high, low, close, vol, amount, toString(b.source) AS source, ticks, quality_score
FROM {table:Identifier} AS b FINAL
WHERE b.symbol IN {symbols:Array(String)}
  AND frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
ORDER BY symbol, frame
