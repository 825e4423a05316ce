-- What one version wrote into a table of bars.
SELECT count(), uniqExact(symbol), min(frame), max(frame) FROM {table:Identifier}
WHERE version = {version:UInt64} AND frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
SETTINGS final = 0
