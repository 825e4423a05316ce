-- The table of a processor: its declared columns. The highest version of a symbol and frame is read.
CREATE TABLE IF NOT EXISTS {table:Identifier} $on_cluster (
    symbol  LowCardinality(String) CODEC(ZSTD(1)),
    frame   DateTime('Asia/Shanghai') CODEC(DoubleDelta, ZSTD(1)),
    $columns,
    version UInt64 CODEC(ZSTD(1))
)
ENGINE = $replacing_merge_tree(version)
PARTITION BY toYYYYMM(frame)
ORDER BY (toDate(frame), symbol, frame)
