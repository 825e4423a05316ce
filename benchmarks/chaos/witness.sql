-- Every row that reaches `ticks`, kept apart: `ticks` merges equal keys away sooner or later, this does not, so a
-- doubled insert stays visible. It de-duplicates by the same tokens, being a target of a view on `ticks`.
CREATE TABLE witness (session String, seq UInt64, symbol LowCardinality(String), time DateTime64(3, 'Asia/Shanghai'), pvolume Int64, amount Float64, withdrawn UInt8)
ENGINE = MergeTree ORDER BY (session, seq) SETTINGS non_replicated_deduplication_window = 10000;
CREATE MATERIALIZED VIEW witness_mv TO witness AS SELECT session, seq, symbol, time, pvolume, amount, bitAnd(flags, 128) > 0 AS withdrawn FROM ticks;
-- What the simulated market gave, from its plan alone.
CREATE TABLE expected (symbol LowCardinality(String), time DateTime64(3, 'Asia/Shanghai'), pvolume Int64)
ENGINE = MergeTree ORDER BY (symbol, time)
