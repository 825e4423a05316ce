-- Rows of the rule for the frames first … last of a day, straight from the states (a forming minute included).
SELECT toString(symbol) AS symbol, toDateTime64(r.frame, 0, 'Asia/Shanghai') AS frame, open, high, low, close, vol, amount, toString(source) AS source, ticks, quality_score
FROM bars_1m_live(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')}) AS r
ORDER BY frame, symbol
-- the view merges the states itself: FINAL would do it twice
SETTINGS final = 0
