-- How many ticks a day has (0: its bars must come from QMT's history). Rows as stored: an estimate that costs nothing is enough.
SELECT count() FROM ticks
WHERE time >= toDateTime({day:Date}, 'Asia/Shanghai') AND time < toDateTime({day:Date} + 1, 'Asia/Shanghai')
SETTINGS final = 0
