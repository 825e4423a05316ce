-- Minutes of one symbol that are not final yet, the forming one among them, by the rule of a bar.
SELECT toUnixTimestamp(frame) AS frame_s, open, high, low, close, vol, toString(source) AS source
FROM bars_1m_live(day = {day:Date}, first = toDateTime({first:Int64}, 'Asia/Shanghai'), last = toDateTime({last:Int64}, 'Asia/Shanghai'))
WHERE symbol = {symbol:String}
ORDER BY frame
SETTINGS final = 0
