-- Final bars, one table per period. The highest version of a (symbol, frame) is the bar; readers use final = 1.
-- source: live = from ticks, history = from QMT's own bars, filled = no trade in the window. amount in yuan.
-- The columns from cum_volume on are the carry: what the day's ticks had reached at the end of the frame, whatever the row's own
-- source (0: no trade seen by then); last_price is 0 where it is the row's own close. The frames after it are computed from their
-- own ticks and this.
CREATE TABLE IF NOT EXISTS bars_1m $on_cluster (
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
    cum_volume    Int64 CODEC(Delta, ZSTD(1)),
    cum_amount    Float64 CODEC(Delta, ZSTD(1)),
    day_open      Float64 CODEC(Delta, ZSTD(1)),
    day_high      Float64 CODEC(Delta, ZSTD(1)),
    day_low       Float64 CODEC(Delta, ZSTD(1)),
    last_price    Float64 CODEC(Delta, ZSTD(1)),
    pre_close     Float64 CODEC(Delta, ZSTD(1)),
    version       UInt64 CODEC(ZSTD(1))
)
ENGINE = $replacing_merge_tree(version)
PARTITION BY toYYYYMMDD(frame)
ORDER BY (symbol, frame)
SETTINGS $dedup_setting = $dedup_window;

-- frame is 15:00 of the day. After-hours fixed-price trading is in its own columns, never in vol.
CREATE TABLE IF NOT EXISTS bars_1d $on_cluster (
    symbol             LowCardinality(String) CODEC(ZSTD(1)),
    frame              DateTime('Asia/Shanghai') CODEC(DoubleDelta, ZSTD(1)),
    open               Float64 CODEC(Delta, ZSTD(1)),
    high               Float64 CODEC(Delta, ZSTD(1)),
    low                Float64 CODEC(Delta, ZSTD(1)),
    close              Float64 CODEC(Delta, ZSTD(1)),
    vol                Int64 CODEC(T64, ZSTD(1)),
    amount             Float64 CODEC(Delta, ZSTD(1)),
    source             Enum8('live' = 1, 'history' = 2, 'filled' = 3),
    ticks              UInt32 CODEC(T64, ZSTD(1)),
    quality_score      Float32 CODEC(ZSTD(1)),
    pre_close          Float64 CODEC(Delta, ZSTD(1)),
    after_hours_vol    Int64 CODEC(T64, ZSTD(1)),
    after_hours_amount Float64 CODEC(Delta, ZSTD(1)),
    suspended          UInt8 CODEC(ZSTD(1)),
    version            UInt64 CODEC(ZSTD(1))
)
ENGINE = $replacing_merge_tree(version)
PARTITION BY toYYYYMM(frame)
ORDER BY (toDate(frame), symbol);
