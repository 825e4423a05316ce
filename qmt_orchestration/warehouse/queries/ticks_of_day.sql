-- The stored ticks of one day, duplicates included.
SELECT * FROM ticks
WHERE time >= toDateTime64({day:Date}, 3, 'Asia/Shanghai') AND time < toDateTime64({day:Date} + 1, 3, 'Asia/Shanghai')
SETTINGS final = 0
