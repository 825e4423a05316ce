-- Delete single rows of a table of bars.
DELETE FROM {table:Identifier}
WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
  AND (toString(symbol), toUnixTimestamp(frame)) IN {keys:Array(Tuple(String, UInt32))}
