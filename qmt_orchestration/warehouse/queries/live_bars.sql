-- Rows of the rule for the frames first … last of a day (a forming minute included), computed from the frame since on. An empty
-- symbol stands for all.
SELECT toString(symbol) AS symbol, toDateTime64(r.frame, 0, 'Asia/Shanghai') AS frame, open, high, low, close, vol, amount, toString(source) AS source, ticks, quality_score
FROM bars_1m_live(day = {day:Date}, first = {since:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')}) AS r
WHERE r.frame >= {first:DateTime('Asia/Shanghai')} AND ({symbol:String} = '' OR r.symbol = {symbol:String})
ORDER BY frame, symbol
SETTINGS final = 0, optimize_aggregation_in_order = 1  -- FINAL stands where it is needed
