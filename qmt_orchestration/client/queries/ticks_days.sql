-- Days that have ticks between two times, from the names of the partitions.
SELECT DISTINCT toDate(toString(toYYYYMMDD(time))) FROM ticks
WHERE time >= {first:DateTime('Asia/Shanghai')} AND time <= {last:DateTime('Asia/Shanghai')}
SETTINGS final = 0
