-- Ticks of a day, each counted once by the key of this version: in the first edition's table, in `ticks`.
SELECT
    (SELECT count() FROM (SELECT 1 FROM ticks_v1 WHERE _partition_id = {partition:String}
                          GROUP BY symbol, time, volume, pvolume, amount)) AS old,
    (SELECT count() FROM (SELECT 1 FROM ticks WHERE _partition_id = {partition:String}
                          GROUP BY $tick_bucket(time), symbol, time, volume, pvolume, amount)) AS new
SETTINGS final = 0, optimize_aggregation_in_order = 1
