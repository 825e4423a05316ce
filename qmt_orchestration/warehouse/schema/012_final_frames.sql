-- Which frames of a day are in bars_1m, and when their ticks were read: a frame with a tick stored later is open again.
-- changed: the newest version that altered bars of the day, for the rollups. block: the newest block of the day's ticks
-- then, so that a day nothing was inserted into is not looked at.
CREATE TABLE IF NOT EXISTS final_frames $on_cluster (
    day     Date,
    frame   DateTime('Asia/Shanghai'),
    read_at DateTime64(6, 'Asia/Shanghai'),
    block   Int64,
    changed UInt64,
    version UInt64
)
ENGINE = $replacing_merge_tree(version)
ORDER BY (day, frame);

-- How far each rollup of a day has followed: the highest `changed` of its frames when it was made. Period 1m: the whole day
-- computed once more from its ticks, and how many final bars differed (0 but for a defect), the first of them as JSON.
CREATE TABLE IF NOT EXISTS rolled_up $on_cluster (
    day      Date,
    period   LowCardinality(String),
    version  UInt64,
    differed UInt64,
    worst    String DEFAULT '[]',
    at       DateTime64(6) DEFAULT now64(6)
)
ENGINE = $replacing_merge_tree(at)
ORDER BY (day, period);
