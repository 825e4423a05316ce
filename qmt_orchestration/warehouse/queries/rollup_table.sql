-- The table of a rollup (5m, 30m, 1w …). One day across the market is what is asked for most: the date leads the key, so that a
-- month partition is not scanned.
CREATE TABLE IF NOT EXISTS bars_$period $on_cluster (
    symbol        LowCardinality(String) CODEC(ZSTD(1)),
    frame         DateTime('Asia/Shanghai') CODEC(DoubleDelta, ZSTD(1)),
    open          Float64 CODEC(Delta, ZSTD(1)),
    high          Float64 CODEC(Delta, ZSTD(1)),
    low           Float64 CODEC(Delta, ZSTD(1)),
    close         Float64 CODEC(Delta, ZSTD(1)),
    vol           Int64 CODEC(T64, ZSTD(1)),
    amount        Float64 CODEC(Delta, ZSTD(1)),
    source        Enum8('live' = 1, 'history' = 2, 'filled' = 3),
    ticks         UInt32 CODEC(T64, ZSTD(1)),
    quality_score Float32 CODEC(ZSTD(1)),
    version       UInt64 CODEC(ZSTD(1))
)
ENGINE = $replacing_merge_tree(version)
PARTITION BY toYYYYMM(frame)
ORDER BY (toDate(frame), symbol, frame)
