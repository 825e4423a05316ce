-- A synthetic day of the whole market: {symbols} symbols × {snapshots} snapshots, evenly 3 s apart, each traded.
-- Prices and volumes come from hashes: the arithmetic of a bar costs the same as on real ticks.
INSERT INTO ticks (symbol, time, lastPrice, open, high, low, lastClose, amount, volume, pvolume, total_volume, stockStatus, openInt,
                   transactionNum, received_at, session, seq, flags, quality_score)
WITH
    intDiv(number, {snapshots:UInt32}) + {first_symbol:UInt32} AS s,
    number % {snapshots:UInt32} AS i,
    {snapshots:UInt32} / 2 AS half,
    cityHash64(s, i) % 100 AS noise,
    100 * (i + 1) * (1 + s % 7) AS shares,
    toDateTime64({day:Date}, 3, 'Asia/Shanghai') + toIntervalSecond(if(i < half, 34200 + 3 * i, 46800 + 3 * (i - half))) AS at
SELECT
    leftPad(toString(s), 6, '0') || '.SZ', at,
    10 + noise / 100, 10, 11 + i / 10000, 9.99 - i / 10000, 10, shares * 10.5, intDiv(shares, 100), shares, shares, 3, 13, 0,
    now64(3), 'benchmark', i, 0, 1
FROM numbers({symbols:UInt32} * {snapshots:UInt32})
