-- Bars of the closed frames of a day, from the rule of a bar, in the order in which they go to minute_bar_stream.
SELECT toUnixTimestamp(frame) AS frame_s, symbol, open, high, low, close, vol, amount, source, quality_score
FROM bars_1m_live
WHERE toDate(frame) = {day:Date}
  AND frame BETWEEN toDateTime({first_s:UInt32}, 'Asia/Shanghai') AND toDateTime({last_s:UInt32}, 'Asia/Shanghai')
ORDER BY frame, symbol
