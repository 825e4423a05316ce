-- What closed days held, per table and symbol, when they were last made or verified: rows, a sum over their content, and the newest
-- version (bars) or moment of storing (ticks, microseconds). See docs/quality.md.
CREATE TABLE IF NOT EXISTS day_sums $on_cluster (
    day    Date,
    table  LowCardinality(String),
    symbol LowCardinality(String),
    rows   UInt64,
    content UInt64,
    newest UInt64,
    at     DateTime64(3) DEFAULT now64(3)
)
ENGINE = $replacing_merge_tree(at)
PARTITION BY toYYYYMM(day)
ORDER BY (day, table, symbol);

-- Bars that somebody replaced by hand, with who, when and why (`qmt override-bar`). The newest row of a key counts; active = 0 takes
-- an override back.
CREATE TABLE IF NOT EXISTS bar_overrides $on_cluster (
    symbol LowCardinality(String),
    frame  DateTime('Asia/Shanghai'),
    active UInt8,
    open   Float64,
    high   Float64,
    low    Float64,
    close  Float64,
    vol    Int64,
    amount Float64,
    reason String,
    author String,
    at     DateTime64(3, 'Asia/Shanghai') DEFAULT now64(3)
)
ENGINE = $merge_tree
ORDER BY (toDate(frame), symbol, frame, at);
