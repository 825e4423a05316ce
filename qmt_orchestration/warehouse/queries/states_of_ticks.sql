-- Ticks to mergeable states, one row per symbol and frame. The same text feeds bar_states_1m as its materialized view
-- (source = the inserted ticks) and a rebuild (source = the ticks of a day): there is no second derivation.
-- Every state is a maximum, a minimum or a set, so that order, repeats and batching of ticks cannot change a bar.
--   shares    pvolume, or volume x 100 when the two disagree by more than a lot (old builds: 0; some funds: lots)
--   traded    a price and a volume; during the opening call the price is virtual and the volume 0: coverage, no bar
--   baseline  flag 1: the first snapshot after a gap of coverage; it sets the base of its minute and is no trade of it
WITH
    if(abs(volume * 100 - pvolume) <= 100, pvolume, volume * 100) AS shares,
    lastPrice > 0 AND shares > 0 AS traded,
    bitAnd(flags, 1) = 1 AS baseline,
    traded AND NOT baseline AS counted,
    toHour(time) * 60 + toMinute(time) AS minute,
    -- end labels; up to 09:30 the opening call, 11:30:xx and the break 11:30, 15:00:xx 15:00, from 15:05 on after-hours (15:30)
    multiIf(minute < 570, 570, minute < 690, minute + 1, minute < 780, 690, minute < 900, minute + 1, minute < 905, 900, 930) AS label,
    toUInt32(cityHash64(time, shares)) AS snapshot
SELECT
    symbol,
    toDateTime(toDate(time), 'Asia/Shanghai') + label * 60 AS frame,
    min(if(counted, (time, shares, lastPrice), (toDateTime64('2200-01-01 00:00:00', 3, 'Asia/Shanghai'), 0::Int64, 0.))) AS first_price,
    max(if(traded, (time, shares, lastPrice), (toDateTime64(0, 3, 'Asia/Shanghai'), 0::Int64, 0.))) AS last_price,
    max(if(counted, lastPrice, 0.)) AS price_high,
    min(if(counted, lastPrice, inf)) AS price_low,
    max(if(traded, ticks.open, 0.)) AS day_open,
    max(if(traded, ticks.high, 0.)) AS day_high,
    min(if(traded AND ticks.low > 0, ticks.low, inf)) AS day_low,
    max(lastClose) AS pre_close,
    max(if(traded, shares, 0::Int64)) AS cum_volume,
    max(if(traded, ticks.amount, 0.)) AS cum_amount,
    max(if(traded AND minute = 899, shares, 0::Int64)) AS continuous_volume,
    groupUniqArrayIf((snapshot, shares, ticks.amount, ticks.high, if(ticks.low > 0, ticks.low, inf)), traded AND baseline) AS baselines,
    groupBitmapStateIf(snapshot, counted) AS snapshots,
    max(toUInt8(openInt = 1)) AS suspended,
    max(time) AS last_time,
    min(ticks.quality_score) AS quality,
    count() AS rows_in,
    max(toUInt64(toUnixTimestamp64Micro(now64(6)))) AS updated
FROM $source AS ticks
GROUP BY symbol, frame
