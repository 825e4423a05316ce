-- Share of minutes without a trade: their bars repeat the last price and are marked as filled. 14:58 to 14:59 of the closing
-- call never trade and are left out.
-- measure: share of filled bars
WITH b AS (
  SELECT symbol, count() AS bars, countIf(source = 'filled') AS filled
  FROM bars_1m
  WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
    AND NOT (toHour(frame) = 14 AND toMinute(frame) IN (58, 59))
  GROUP BY symbol
)
SELECT
  if(sum(bars) = 0, 0., sum(filled) / sum(bars)) AS measure,
  'most minutes with trades' AS expected,
  concat(toString(sum(filled)), ' of ', toString(sum(bars)), ' bars filled') AS found,
  toJSONString(arrayMap(x -> map('symbol', toString(x.3), 'filled', toString(x.2), 'bars', toString(x.1)),
    arraySlice(arrayReverseSort(x -> x.2, groupArrayIf((bars, filled, symbol), filled > 0)), 1, 20))) AS worst
FROM b
