-- One row per check, partition and run: the history that Dagster's one status per check does not keep.
CREATE TABLE IF NOT EXISTS quality_results $on_cluster (
    day      Date,
    asset    LowCardinality(String),
    check    LowCardinality(String),
    run_id   String,
    passed   UInt8,
    severity LowCardinality(String),
    expected String,
    found    String,
    evidence String CODEC(ZSTD(3)),
    at       DateTime64(3, 'Asia/Shanghai')
)
ENGINE = $replacing_merge_tree(at)
PARTITION BY toYYYYMM(day)
ORDER BY (day, asset, check, run_id);
