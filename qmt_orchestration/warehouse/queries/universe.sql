-- Symbols to ask QMT about: listed instruments of the day, else of the newest list before it, else of the oldest one there is (a day
-- before the first list); without any list, those that ticked that day.
WITH (SELECT if(countIf(day <= {day:Date}) > 0, maxIf(day, day <= {day:Date}), min(day)) FROM instruments) AS chosen
SELECT toString(symbol) FROM instruments WHERE day = chosen AND listed
UNION DISTINCT
SELECT DISTINCT toString(symbol) FROM ticks
WHERE time >= toDateTime({day:Date}, 'Asia/Shanghai') AND time < toDateTime({day:Date} + 1, 'Asia/Shanghai')
  AND (SELECT count() FROM instruments) = 0
ORDER BY 1
