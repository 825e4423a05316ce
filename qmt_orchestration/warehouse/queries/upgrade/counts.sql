-- Ticks of a day, each counted once by the key of this version: in the first edition's table, in `ticks`.
SELECT
    (SELECT uniqExact(cityHash64(symbol, time, volume, pvolume, amount)) FROM ticks_v1 WHERE _partition_id = {partition:String}) AS old,
    (SELECT uniqExact(cityHash64(symbol, time, volume, pvolume, amount)) FROM ticks WHERE _partition_id = {partition:String}) AS new
SETTINGS final = 0
