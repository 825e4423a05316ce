-- THE RULE OF A BAR (docs/bars.md). bars_1m_live(day, first, last): the minute bars of the frames first … last of a day,
-- from states alone. Used by the per-minute finalization, the backfill, the publisher and the validation.
-- Frames are counted by i = 0 (09:30), 1 (09:31) … 120 (11:30), 121 (13:01) … 240 (15:00); frames before `first` are one row per symbol.
--   v a hi lo   the day's cumulative volume, amount, high, low at the frame's end; p… the same before it
--   b…          the highest baseline of the frame: what happened before it is never booked
--   version     0: given when the row is stored; gap: 1 = a baseline stands in the minute, part of it was not seen
CREATE OR REPLACE VIEW bars_1m_live $on_cluster AS
WITH
    toHour({first:DateTime('Asia/Shanghai')}) * 60 + toMinute({first:DateTime('Asia/Shanghai')}) AS first_minute,
    toHour({last:DateTime('Asia/Shanghai')}) * 60 + toMinute({last:DateTime('Asia/Shanghai')}) AS last_minute,
    toInt16(if(first_minute <= 690, greatest(first_minute, 570) - 570, greatest(first_minute - 660, 121))) AS first_i,
    toInt16(if(last_minute < 780, least(last_minute, 690) - 570, least(last_minute - 660, 240))) AS last_i,
    states AS (
        SELECT symbol, toInt16(first_i - 1) AS i, max(cum_volume) AS v, max(cum_amount) AS a, max(day_high) AS hi, min(day_low) AS lo,
               argMaxMerge(last_price) AS price, 0. AS first_traded, 0. AS top, 0. AS bottom, 0::Int64 AS continuous,
               []::Array(Tuple(UInt32, Int64, Float64, Float64, Float64)) AS bases, 0::UInt64 AS n, 1::Float32 AS score
        FROM bar_states_1m
        WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) AND frame < {first:DateTime('Asia/Shanghai')}
        GROUP BY symbol HAVING v > 0
        UNION ALL
        SELECT symbol, i, v, a, hi, lo, price, first_traded, top, bottom, continuous,
               arrayFilter(b -> NOT bitmapContains(snaps, b.1), all_bases) AS bases, bitmapCardinality(snaps) AS n, score
        FROM (
            SELECT symbol, frame, toInt16(toHour(frame) * 60 + toMinute(frame) - if(toHour(frame) < 12, 570, 660)) AS i,
                   max(cum_volume) AS v, max(cum_amount) AS a, max(day_high) AS hi, min(day_low) AS lo, argMaxMerge(last_price) AS price,
                   argMinMerge(first_price) AS first_traded, max(price_high) AS top, min(price_low) AS bottom,
                   max(continuous_volume) AS continuous, groupUniqArrayArray(baselines) AS all_bases,
                   groupBitmapMergeState(snapshots) AS snaps, min(quality) AS score
            FROM bar_states_1m
            WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
              AND frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
              AND frame <= toDateTime({day:Date}, 'Asia/Shanghai') + 54000
            GROUP BY symbol, frame HAVING v > 0
        )
    ),
    moved AS (
        SELECT *, notEmpty(bases) AS in_part,
               greatest(max(v) OVER before, arrayMax(bases.2)) AS pv,
               greatest(max(a) OVER before, arrayMax(bases.3)) AS pa,
               greatest(max(hi) OVER before, arrayMax(bases.4)) AS phi,
               least(if(max(v) OVER before = 0, inf, min(lo) OVER before), arrayMin(arrayPushBack(bases.5, inf))) AS plo,
               leadInFrame(i, 1, toInt16(last_i + 1)) OVER (PARTITION BY symbol ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS next_i,
               greatest(v - pv, 0) AS dv, round(greatest(a - pa, 0.), 4) AS da, hi > phi AS rose, lo < plo AS fell,
               dv > 0 OR da > 0 OR rose OR fell AS traded,
               i = 240 AND continuous <= pv AS auction_only
        FROM states
        WINDOW before AS (PARTITION BY symbol ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    )
SELECT
    symbol, toDateTime({day:Date}, 'Asia/Shanghai') + (at_i + if(at_i <= 120, 570, 660)) * 60 AS frame, is_traded,
    if(is_traded AND NOT auction_only, first_traded, price) AS open,
    if(is_traded, greatest(if(auction_only, price, top), if(rose, hi, 0.)), price) AS high,
    if(is_traded, least(if(auction_only, price, bottom), if(fell, lo, inf)), price) AS low,
    price AS close,
    if(is_traded, dv, 0) AS vol,
    if(is_traded, da, 0.) AS amount,
    CAST(if(is_traded, 'live', 'filled'), 'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source,
    toUInt32(if(seen, n, 0)) AS ticks,
    toFloat32(multiIf(NOT seen, 0.5, in_part, least(score, 0.5), score)) AS quality_score,
    0::UInt64 AS version,
    seen AND in_part AS gap
FROM (
    SELECT *, at_i, at_i = i AS seen, seen AND traded AS is_traded
    FROM moved ARRAY JOIN range(greatest(i, first_i), next_i) AS at_i
);
