-- Final minute bars of one symbol on one day. Frames are end labels.
SELECT toUnixTimestamp(frame) AS frame_s, open, high, low, close, vol, toString(source) AS source
FROM bars_1m FINAL
WHERE symbol = {symbol:String} AND toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
ORDER BY frame
