-- QMT's own bars as fetched through the gateway: end labels, vol in shares (QMT's lots × 100), amount in yuan, not adjusted.
CREATE TABLE IF NOT EXISTS qmt_bars $on_cluster (
    period     LowCardinality(String),
    symbol     LowCardinality(String),
    frame      DateTime('Asia/Shanghai') CODEC(DoubleDelta, ZSTD(1)),
    open       Float64 CODEC(Delta, ZSTD(1)),
    high       Float64 CODEC(Delta, ZSTD(1)),
    low        Float64 CODEC(Delta, ZSTD(1)),
    close      Float64 CODEC(Delta, ZSTD(1)),
    vol        Int64 CODEC(T64, ZSTD(1)),
    amount     Float64 CODEC(Delta, ZSTD(1)),
    fetched_at DateTime64(3, 'Asia/Shanghai') DEFAULT now64(3)
)
ENGINE = $replacing_merge_tree(fetched_at)
PARTITION BY toYYYYMM(frame)
ORDER BY (period, toDate(frame), symbol, frame);

-- The instrument list of each trading day. Prices in yuan.
CREATE TABLE IF NOT EXISTS instruments $on_cluster (
    day        Date,
    symbol     LowCardinality(String),
    name       String,
    board      LowCardinality(String),
    pre_close  Float64,
    up_stop    Float64,
    down_stop  Float64,
    suspended  UInt8,
    listed     UInt8,
    fetched_at DateTime64(3, 'Asia/Shanghai') DEFAULT now64(3)
)
ENGINE = $replacing_merge_tree(fetched_at)
PARTITION BY toYYYYMM(day)
ORDER BY (day, symbol);

-- Dated dividend factors as QMT gives them (get_divid_factors); dr is the day's price ratio, previous close ÷ ex-price.
CREATE TABLE IF NOT EXISTS adjust_factors $on_cluster (
    symbol     LowCardinality(String),
    ex_date    Date,
    interest   Float64 DEFAULT 0,
    stock_bonus Float64 DEFAULT 0,
    stock_gift Float64 DEFAULT 0,
    allot_num  Float64 DEFAULT 0,
    allot_price Float64 DEFAULT 0,
    dr         Float64,
    fetched_at DateTime64(3, 'Asia/Shanghai') DEFAULT now64(3)
)
ENGINE = $replacing_merge_tree(fetched_at)
ORDER BY (symbol, ex_date);
