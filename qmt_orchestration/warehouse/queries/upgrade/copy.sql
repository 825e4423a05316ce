-- One day of the first edition's ticks into `ticks`. Repeated, it changes nothing: equal keys are one tick.
-- total_volume by the first edition's rule: shares, or lots × 100 when the two disagree by more than a lot.
INSERT INTO ticks ($columns, total_volume, stored_at)
SELECT $columns, if(abs(volume * 100 - pvolume) <= 100, pvolume, volume * 100), received_at
FROM ticks_v1 WHERE _partition_id = {partition:String}
SETTINGS final = 0, insert_deduplicate = 0, optimize_on_insert = 0, max_insert_threads = 2
