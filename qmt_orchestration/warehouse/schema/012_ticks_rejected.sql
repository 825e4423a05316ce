-- Ticks rejected at ingestion, with reason and payload: nothing is dropped without a trace.
CREATE TABLE IF NOT EXISTS ticks_rejected $on_cluster (
    symbol      LowCardinality(String),
    time        DateTime64(3, 'Asia/Shanghai'),
    received_at DateTime64(3, 'Asia/Shanghai'),
    session     LowCardinality(String),
    reason      LowCardinality(String),
    detail      String CODEC(ZSTD(1)),
    payload     String CODEC(ZSTD(3))
)
ENGINE = $merge_tree
PARTITION BY toYYYYMMDD(received_at)
ORDER BY (reason, received_at)
TTL toDateTime(received_at) + INTERVAL $rejected_ttl_days DAY
SETTINGS $dedup_setting = $dedup_window, ttl_only_drop_parts = 1;
