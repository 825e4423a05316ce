-- Ticks as they came: the columns of market.schema.TICK_SCHEMA.
-- Life time counts from arrival, so that a replay of an old day is kept as long as a live one.
-- Equal (symbol, time, pvolume, amount) is the same tick, whoever sent it: a replay or a re-seed changes nothing.
CREATE TABLE IF NOT EXISTS ticks $on_cluster (
    symbol         LowCardinality(String),
    time           DateTime64(3, 'Asia/Shanghai') CODEC(DoubleDelta, ZSTD(1)),
    lastPrice      Float64 CODEC(Delta, ZSTD(1)),
    open           Float64 CODEC(Delta, ZSTD(1)),
    high           Float64 CODEC(Delta, ZSTD(1)),
    low            Float64 CODEC(Delta, ZSTD(1)),
    lastClose      Float64 CODEC(Delta, ZSTD(1)),
    amount         Float64 CODEC(Delta, ZSTD(1)),
    volume         Int64   CODEC(Delta, ZSTD(1)),
    pvolume        Int64   CODEC(Delta, ZSTD(1)),
    stockStatus    Int32   CODEC(ZSTD(1)),
    openInt        Int32   CODEC(ZSTD(1)),
    transactionNum Int64   CODEC(Delta, ZSTD(1)),
    askPrice       Array(Float64) CODEC(ZSTD(1)),
    bidPrice       Array(Float64) CODEC(ZSTD(1)),
    askVol         Array(Int64) CODEC(ZSTD(1)),
    bidVol         Array(Int64) CODEC(ZSTD(1)),
    total_volume   Int64   CODEC(Delta, ZSTD(1)),
    received_at    DateTime64(3, 'Asia/Shanghai') CODEC(DoubleDelta, ZSTD(1)),
    session        LowCardinality(String),
    seq            UInt64  CODEC(ZSTD(1)),
    flags          UInt32  CODEC(ZSTD(1)),
    quality_score  Float32 CODEC(ZSTD(1))
)
ENGINE = $replacing_merge_tree
PARTITION BY toYYYYMMDD(time)
ORDER BY (symbol, time, pvolume, amount)
TTL toDateTime(received_at) + INTERVAL $ticks_ttl_days DAY
SETTINGS $dedup_setting = $dedup_window, ttl_only_drop_parts = 1;

-- Ticks set aside at the edge, with reason and payload: nothing is dropped without a trace.
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
