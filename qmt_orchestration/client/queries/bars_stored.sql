-- Stored bars of some symbols (none = all) with first <= frame <= last.
SELECT toString(b.symbol) AS symbol, frame, open, high, low, close, vol, amount, toString(b.source) AS source, b.ticks AS ticks, quality_score
FROM {table:Identifier} AS b FINAL
WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
  AND (empty({symbols:Array(String)}) OR b.symbol IN {symbols:Array(String)})
ORDER BY symbol, frame
