-- Final minute bars of (after, until], for clients that were away longer than minute_bar_stream reaches back.
SELECT symbol, toUnixTimestamp(frame) AS timestamp, open, high, low, close, vol, amount, quality_score, toString(source) AS source
FROM bars_1m FINAL
WHERE frame > toDateTime({after:Int64}, 'Asia/Shanghai') AND frame <= toDateTime({until:Int64}, 'Asia/Shanghai')
ORDER BY frame, symbol
