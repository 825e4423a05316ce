-- A day of ticks in one row, for the metadata of its partition: rows, symbols, feed sessions, first and last tick, mean score.
SELECT count(), uniqExact(symbol), uniqExact(session),
       if(count() = 0, 'none', formatDateTime(min(time), '%H:%i:%S', 'Asia/Shanghai')),
       if(count() = 0, 'none', formatDateTime(max(time), '%H:%i:%S', 'Asia/Shanghai')),
       if(count() = 0, 0., round(avg(quality_score), 4))
FROM ticks
WHERE time >= toDateTime({day:Date}, 'Asia/Shanghai') AND time < toDateTime({day:Date} + 1, 'Asia/Shanghai')
