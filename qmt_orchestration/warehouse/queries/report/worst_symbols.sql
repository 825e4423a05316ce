-- Symbols with the lowest scores of the day, and how many of their minutes were filled or came from history.
SELECT toString(symbol) AS symbol, count() AS bars, countIf(source = 'filled') AS filled, countIf(source = 'history') AS history,
       round(avgIf(quality_score, source = 'live'), 4) AS score
FROM bars_1m
WHERE frame >= toDateTime({day:Date}, 'Asia/Shanghai') AND frame < toDateTime({day:Date} + 1, 'Asia/Shanghai')
GROUP BY symbol ORDER BY score, filled DESC, symbol LIMIT 15
