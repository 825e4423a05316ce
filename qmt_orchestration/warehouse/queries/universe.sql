-- Symbols to ask QMT about: listed instruments of the day, else of the newest list before it, else those that ticked that day.
WITH (SELECT max(day) FROM instruments WHERE day <= {day:Date}) AS newest
SELECT toString(symbol) FROM instruments WHERE day = newest AND listed
UNION DISTINCT
SELECT DISTINCT toString(symbol) FROM ticks
WHERE time >= toDateTime({day:Date}, 'Asia/Shanghai') AND time < toDateTime({day:Date} + 1, 'Asia/Shanghai')
  AND (SELECT count() FROM instruments WHERE day <= {day:Date}) = 0
ORDER BY 1
