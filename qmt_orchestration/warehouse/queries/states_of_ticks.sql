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
    -- exchange time (ms of the day) and shares in one number: orders ticks, stamps repeat while volume grows
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
FROM $source AS ticks
GROUP BY symbol, frame
