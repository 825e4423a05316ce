-- One row per partition; state changes whenever its parts do.
SELECT table, partition_id, sum(rows) AS rows, sum(data_compressed_bytes) AS bytes,
       sum(data_uncompressed_bytes) AS raw_bytes,
       hex(sipHash128(arraySort(groupArray((name, toString(hash_of_all_files)))))) AS state
FROM system.parts
WHERE active AND database = {db:String}
GROUP BY table, partition_id
ORDER BY table, partition_id
