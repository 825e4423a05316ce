-- Which symbols were members of a sector on a trading day, from the gateway (QMT_MEMBER_SECTORS). History is kept.
CREATE TABLE IF NOT EXISTS sector_members $on_cluster (
    day        Date CODEC(ZSTD(1)),
    sector     LowCardinality(String) CODEC(ZSTD(1)),
    symbol     LowCardinality(String) CODEC(ZSTD(1)),
    fetched_at DateTime64(3, 'Asia/Shanghai') DEFAULT now64(3) CODEC(ZSTD(1))
)
ENGINE = $replacing_merge_tree(fetched_at)
PARTITION BY toYYYYMM(day)
ORDER BY (sector, day, symbol);

-- What the terminal's own types and sectors say against the kind; empty: they agree, or were not asked.
ALTER TABLE instruments $on_cluster ADD COLUMN IF NOT EXISTS kind_doubt String DEFAULT '';

-- An event of an ex-date moves prices before it by p -> event_a * p + event_b (adjustment front); dr is the ratio of the others.
ALTER TABLE adjust_factors $on_cluster
    ADD COLUMN IF NOT EXISTS event_a Float64 ALIAS 1 / (1 + stock_bonus + stock_gift + allot_num),
    ADD COLUMN IF NOT EXISTS event_b Float64 ALIAS (allot_price * allot_num - interest) * event_a;

-- Adjusted prices are the client's (bars(..., adjust=...)), by one rule for every period.
DROP VIEW IF EXISTS daily_bars_front $on_cluster;
DROP VIEW IF EXISTS daily_bars_back $on_cluster;
DROP VIEW IF EXISTS daily_factors $on_cluster;
DROP VIEW IF EXISTS after_hours_boards $on_cluster;
