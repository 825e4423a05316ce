-- No symbol and frame stands twice with the same version. Reads what is stored (final=0): a newer version beside an
-- older one is a revision, not a double.
-- measure: rows too many
WITH doubled AS (
  SELECT symbol, frame, version, count() AS copies
  FROM {table:Identifier}
  WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
  GROUP BY symbol, frame, version HAVING copies > 1
)
SELECT
  toFloat64(sum(copies) - count()) AS measure,
  'no key twice' AS expected,
  concat(toString(sum(copies) - count()), ' rows too many, ', toString(count()), ' keys') AS found,
  toJSONString(groupArray(20)(map('symbol', toString(symbol), 'frame', toString(frame), 'copies', toString(copies)))) AS worst
FROM doubled
SETTINGS final = 0
