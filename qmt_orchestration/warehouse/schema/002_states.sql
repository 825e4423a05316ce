-- What a minute's ticks leave behind: mergeable states, one row per symbol and frame (end label). 15:30 stands for
-- after-hours trading, which belongs to no minute. Columns: queries/states_of_ticks.sql.
CREATE TABLE IF NOT EXISTS bar_states_1m $on_cluster (
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
ENGINE = $aggregating_merge_tree
PARTITION BY toYYYYMMDD(frame)
ORDER BY (frame, symbol)
TTL toDateTime(intDiv(updated, 1000000)) + INTERVAL $ticks_ttl_days DAY
SETTINGS $dedup_setting = $dedup_window, ttl_only_drop_parts = 1;

-- A rebuild prepares a day here and puts it in place with one REPLACE PARTITION.
CREATE TABLE IF NOT EXISTS bar_states_1m_new $on_cluster AS bar_states_1m
ENGINE = $aggregating_merge_tree
PARTITION BY toYYYYMMDD(frame)
ORDER BY (frame, symbol)
TTL toDateTime(intDiv(updated, 1000000)) + INTERVAL $ticks_ttl_days DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS bar_states_1m_mv $on_cluster TO bar_states_1m AS
$states_of_ticks;

-- What of a day's states is in bars_1m: rows_in and updated of a frame as they were when it was made final. A frame whose
-- states have changed since is open again. `changed` is the newest version that altered bars of that day. `block` is the partition's newest block then: an untouched day is skipped.
CREATE TABLE IF NOT EXISTS final_frames $on_cluster (
    day     Date,
    frame   DateTime('Asia/Shanghai'),
    rows_in UInt64,
    updated UInt64,
    block   Int64,
    changed UInt64,
    version UInt64
)
ENGINE = $replacing_merge_tree(version)
ORDER BY (day, frame);

-- How far each rollup of a day has followed: the highest `changed` of its frames when it was made.
CREATE TABLE IF NOT EXISTS rolled_up $on_cluster (
    day     Date,
    period  LowCardinality(String),
    version UInt64,
    at      DateTime64(6) DEFAULT now64(6)
)
ENGINE = $replacing_merge_tree(at)
ORDER BY (day, period);
