-- Ticks as they came: the columns of market.schema.TICK_SCHEMA, and what follows from them (docs/data-contracts.md).
-- Equal (symbol, time, volume, pvolume, amount) is the same tick, whoever sent it. The copy of the highest `rank` is the tick:
-- withdrawn, then seen, then baseline; among those the lower score. So the order of arrival never decides.
-- The bucket leads the key: one minute of the market is read without the day, one symbol's day without the market.
-- The TTL counts from arrival, so that a replay of an old day is kept as long as a live one.
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
    quality_score  Float32 CODEC(ZSTD(1)),
    -- given by this table
    stored_at      DateTime64(6, 'Asia/Shanghai') DEFAULT now64(6) CODEC(Delta, ZSTD(1)),
    rank           UInt16 MATERIALIZED multiIf(bitAnd(flags, 128) != 0, 40000, bitAnd(flags, 1) = 0, 20000, 0) + toUInt16(10000 * (1 - quality_score)),
    -- names for what the rule of a bar asks of a tick; frame_i counts the frames of trading_minutes, 241 = after 15:05
    bucket         DateTime('Asia/Shanghai') ALIAS $tick_bucket(time),
    minute         UInt16 ALIAS toHour(time) * 60 + toMinute(time),
    frame_i        Int16 ALIAS multiIf(minute < 570, 0, minute < 690, minute - 569, minute < 780, 120, minute < 900, minute - 659, minute < 905, 240, 241),
    withdrawn      UInt8 ALIAS bitAnd(flags, 128) != 0,
    baseline       UInt8 ALIAS bitAnd(flags, 1) = 1,
    traded         UInt8 ALIAS lastPrice > 0 AND total_volume > 0 AND NOT withdrawn,
    -- exchange time (ms of the day) and volume in one number: orders ticks, stamps repeat while volume grows
    moment         UInt64 ALIAS bitOr(bitShiftLeft(toUInt64((toUnixTimestamp64Milli(time) + 28800000) % 86400000), 37), toUInt64(least(total_volume, 137438953471))),
    INDEX stored_at_range stored_at TYPE minmax,
    INDEX flags_range flags TYPE minmax
)
ENGINE = $replacing_merge_tree(rank)
PARTITION BY toYYYYMMDD(time)
ORDER BY ($tick_bucket(time), symbol, time, volume, pvolume, amount)
TTL toDateTime(received_at) + INTERVAL $ticks_ttl_days DAY
SETTINGS $dedup_setting = $dedup_window, ttl_only_drop_parts = 1;
