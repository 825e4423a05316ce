-- What a day's bars can be made from: ticks stored (duplicates included) and QMT's own minutes.
SELECT (SELECT count() FROM ticks WHERE time >= toDateTime({day:Date}, 'Asia/Shanghai') AND time < toDateTime({day:Date} + 1, 'Asia/Shanghai')) AS ticks,
       (SELECT count() FROM qmt_bars WHERE period = '1m' AND toDate(frame) = {day:Date}) AS qmt_minutes
SETTINGS final = 0
