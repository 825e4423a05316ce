-- The tables of the first edition as it made them, with its materialized view and its list of applied files.

CREATE TABLE IF NOT EXISTS ticks (
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
    received_at    DateTime64(3, 'Asia/Shanghai') CODEC(DoubleDelta, ZSTD(1)),
    session        LowCardinality(String),
    seq            UInt64  CODEC(ZSTD(1)),
    flags          UInt32  CODEC(ZSTD(1)),
    quality_score  Float32 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMMDD(time)
ORDER BY (symbol, time, pvolume, amount)
TTL toDateTime(received_at) + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS ticks_rejected (
    symbol      LowCardinality(String),
    time        DateTime64(3, 'Asia/Shanghai'),
    received_at DateTime64(3, 'Asia/Shanghai'),
    session     LowCardinality(String),
    reason      LowCardinality(String),
    detail      String CODEC(ZSTD(1)),
    payload     String CODEC(ZSTD(3))
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(received_at)
ORDER BY (reason, received_at)
TTL toDateTime(received_at) + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS bar_states_1m (
    symbol      LowCardinality(String),
    frame       DateTime('Asia/Shanghai') CODEC(DoubleDelta, ZSTD(1)),
    first_price AggregateFunction(argMin, Float64, UInt64) CODEC(ZSTD(1)),
    last_price  AggregateFunction(argMax, Float64, UInt64) CODEC(ZSTD(1)),
    price_high  SimpleAggregateFunction(max, Float64) CODEC(ZSTD(1)),
    price_low   SimpleAggregateFunction(min, Float64) CODEC(ZSTD(1)),
    day_open    SimpleAggregateFunction(max, Float64) CODEC(ZSTD(1)),
    day_high    SimpleAggregateFunction(max, Float64) CODEC(ZSTD(1)),
    day_low     SimpleAggregateFunction(min, Float64) CODEC(ZSTD(1)),
    pre_close   SimpleAggregateFunction(max, Float64) CODEC(ZSTD(1)),
    cum_volume  SimpleAggregateFunction(max, Int64) CODEC(ZSTD(1)),
    cum_amount  SimpleAggregateFunction(max, Float64) CODEC(ZSTD(1)),
    continuous_volume SimpleAggregateFunction(max, Int64) CODEC(ZSTD(1)),
    baselines   SimpleAggregateFunction(groupUniqArrayArray, Array(Tuple(UInt32, Int64, Float64, Float64, Float64))) CODEC(ZSTD(1)),
    snapshots   AggregateFunction(groupBitmap, UInt32) CODEC(ZSTD(1)),
    suspended   SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1)),
    last_time   SimpleAggregateFunction(max, DateTime64(3, 'Asia/Shanghai')) CODEC(ZSTD(1)),
    quality     SimpleAggregateFunction(min, Float32) CODEC(ZSTD(1)),
    rows_in     SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    updated     SimpleAggregateFunction(max, UInt64) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMMDD(frame)
ORDER BY (frame, symbol)
TTL toDateTime(intDiv(updated, 1000000)) + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS bar_states_1m_new  AS bar_states_1m
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMMDD(frame)
ORDER BY (frame, symbol)
TTL toDateTime(intDiv(updated, 1000000)) + INTERVAL 30 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS bar_states_1m_mv  TO bar_states_1m AS
WITH
    if(abs(volume * 100 - pvolume) <= 100, pvolume, volume * 100) AS shares,
    lastPrice > 0 AND shares > 0 AS traded,
    bitAnd(flags, 1) = 1 AS baseline,
    traded AND NOT baseline AS counted,
    toHour(time) * 60 + toMinute(time) AS minute,
    multiIf(minute < 570, 570, minute < 690, minute + 1, minute < 780, 690, minute < 900, minute + 1, minute < 905, 900, 930) AS label,
    bitOr(bitShiftLeft(toUInt64((toUnixTimestamp64Milli(time) + 28800000) % 86400000), 37), toUInt64(shares)) AS moment,
    toUInt32(cityHash64(moment)) AS snapshot
SELECT
    symbol,
    toDateTime(toDate(time), 'Asia/Shanghai') + label * 60 AS frame,
    argMinStateIf(lastPrice, moment, counted) AS first_price,
    argMaxStateIf(lastPrice, moment, traded) AS last_price,
    maxIf(lastPrice, counted) AS price_high,
    min(if(counted, lastPrice, inf)) AS price_low,
    maxIf(ticks.open, traded) AS day_open,
    maxIf(ticks.high, traded) AS day_high,
    min(if(traded AND ticks.low > 0, ticks.low, inf)) AS day_low,
    max(lastClose) AS pre_close,
    maxIf(shares, traded) AS cum_volume,
    maxIf(ticks.amount, traded) AS cum_amount,
    maxIf(shares, traded AND minute = 899) AS continuous_volume,
    groupUniqArrayIf((snapshot, shares, ticks.amount, ticks.high, if(ticks.low > 0, ticks.low, inf)), traded AND baseline) AS baselines,
    groupBitmapStateIf(snapshot, counted) AS snapshots,
    max(toUInt8(openInt = 1)) AS suspended,
    max(time) AS last_time,
    min(ticks.quality_score) AS quality,
    count() AS rows_in,
    max(toUInt64(toUnixTimestamp64Micro(now64(6)))) AS updated
FROM ticks AS ticks
GROUP BY symbol, frame;

CREATE TABLE IF NOT EXISTS final_frames (
    day     Date,
    frame   DateTime('Asia/Shanghai'),
    rows_in UInt64,
    updated UInt64,
    block   Int64,
    changed UInt64,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (day, frame);

CREATE TABLE IF NOT EXISTS rolled_up (
    day     Date,
    period  LowCardinality(String),
    version UInt64,
    at      DateTime64(6) DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(at)
ORDER BY (day, period);

CREATE TABLE IF NOT EXISTS bars_1m (
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
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMMDD(frame)
ORDER BY (symbol, frame)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS bars_5m  AS bars_1m
ENGINE = ReplacingMergeTree(version) PARTITION BY toYYYYMM(frame) ORDER BY (toDate(frame), symbol, frame);

CREATE TABLE IF NOT EXISTS bars_30m  AS bars_1m
ENGINE = ReplacingMergeTree(version) PARTITION BY toYYYYMM(frame) ORDER BY (toDate(frame), symbol, frame);

CREATE TABLE IF NOT EXISTS bars_1d (
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
    version            UInt64 CODEC(ZSTD(1)),
    pre_close          Float64 CODEC(Delta, ZSTD(1)),
    after_hours_vol    Int64 CODEC(T64, ZSTD(1)),
    after_hours_amount Float64 CODEC(Delta, ZSTD(1)),
    suspended          UInt8 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(frame)
ORDER BY (toDate(frame), symbol);

CREATE TABLE IF NOT EXISTS qmt_bars (
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
ENGINE = ReplacingMergeTree(fetched_at)
PARTITION BY toYYYYMM(frame)
ORDER BY (period, toDate(frame), symbol, frame);

CREATE TABLE IF NOT EXISTS instruments (
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
ENGINE = ReplacingMergeTree(fetched_at)
PARTITION BY toYYYYMM(day)
ORDER BY (day, symbol);

CREATE TABLE IF NOT EXISTS adjust_factors (
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
ENGINE = ReplacingMergeTree(fetched_at)
ORDER BY (symbol, ex_date);

CREATE TABLE IF NOT EXISTS quality_results (
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
ENGINE = ReplacingMergeTree(at)
PARTITION BY toYYYYMM(day)
ORDER BY (day, asset, check, run_id);

CREATE TABLE schema_versions (name String, digest String, at DateTime64(3) DEFAULT now64(3))
ENGINE = ReplacingMergeTree(at) ORDER BY name;
INSERT INTO schema_versions (name) VALUES ('001_ticks.sql'), ('002_states.sql'), ('003_bars.sql'), ('004_reference.sql'),
    ('005_bars_live.view.sql'), ('006_bars.view.sql');
