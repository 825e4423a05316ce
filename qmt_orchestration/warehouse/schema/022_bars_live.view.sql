-- THE RULE OF A BAR (docs/bars.md), straight from ticks. tick_frames(day, first, last): what the ticks of the frames first … last of
-- a day say, one row per symbol and frame i; and as i = first - 1 what bars_1m carries of the frames before. FINAL: a tick
-- counts once, as its copy of the highest rank.
--   v a hi lo o pre  the day's cumulative volume, amount, high, low, open and previous close in the ticks of the frame
--   top bottom       highest and lowest price of its snapshots; n their number, score the lowest of theirs
--   bases            baselines: what happened before one is never booked
CREATE OR REPLACE VIEW tick_frames $on_cluster AS
WITH (t -> toInt16(toHour(t) * 60 + toMinute(t) - if(toHour(t) < 12, 570, 660))) AS index_of,
     index_of({first:DateTime('Asia/Shanghai')}) AS first_i, index_of({last:DateTime('Asia/Shanghai')}) AS last_i,
     if(first_i = 0, toDateTime({day:Date}, 'Asia/Shanghai'), {first:DateTime('Asia/Shanghai')} - 60) AS begins,
     {last:DateTime('Asia/Shanghai')} + multiIf(last_i = 120, 5400, last_i = 240, 300, 0) AS ends
SELECT symbol, frame_i AS i, max(total_volume) AS v, max(t.amount) AS a, max(t.high) AS hi, min(if(t.low > 0, t.low, inf)) AS lo,
       max(t.open) AS o, max(lastClose) AS pre, argMax(lastPrice, moment) AS price, argMinIf(lastPrice, moment, NOT baseline) AS first_price,
       maxIf(lastPrice, NOT baseline) AS top, min(if(baseline, inf, lastPrice)) AS bottom, maxIf(total_volume, toHour(time) < 15) AS continuous,
       groupArrayIf((total_volume, t.amount, t.high, if(t.low > 0, t.low, inf)), baseline) AS bases,
       countIf(NOT baseline) AS n, min(t.quality_score) AS score
FROM ticks AS t FINAL
PREWHERE time >= begins AND time < ends
WHERE bucket >= $tick_bucket(begins) AND bucket <= $tick_bucket(ends - 1)
  AND traded AND i BETWEEN first_i AND last_i
GROUP BY symbol, i
UNION ALL
SELECT symbol, toInt16(first_i - 1), cum_volume, cum_amount, day_high, if(day_low > 0, day_low, inf), day_open, pre_close, if(last_price > 0, last_price, close), 0., 0., inf, 0, [], 0, 1
FROM bars_1m FINAL
WHERE first_i > 0 AND cum_volume > 0 AND toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
  AND frame = {first:DateTime('Asia/Shanghai')} - if(first_i = 121, 5460, 60);

-- silent_frames(day, first, last): frames in which a market sent nothing for six seconds and more, its feed was dead for a part of them.
-- Judged where it sends five ticks a second and more; not in the opening call, before the break and in the closing call, and not
-- before the frame is over. quiet: one bit for each second without a tick.
CREATE OR REPLACE VIEW silent_frames $on_cluster AS
WITH if(toHour({first:DateTime('Asia/Shanghai')}) = 9 AND toMinute({first:DateTime('Asia/Shanghai')}) = 30, toDateTime({day:Date}, 'Asia/Shanghai'), {first:DateTime('Asia/Shanghai')} - 60) AS begins,
     (SELECT max(time) FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) SETTINGS final = 0) AS newest
SELECT right(symbol, 3) AS market, frame_i AS i, groupBitOr(bitShiftLeft(1::UInt64, toSecond(time))) AS busy,
       bitAnd(bitNot(busy), 1152921504606846975) AS quiet, bitAnd(quiet, bitShiftRight(quiet, 1)) AS two, bitAnd(two, bitShiftRight(two, 2)) AS four
FROM ticks
WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND bucket >= $tick_bucket(begins) AND bucket <= $tick_bucket({last:DateTime('Asia/Shanghai')})
  AND time >= begins AND time < {last:DateTime('Asia/Shanghai')}
  AND i BETWEEN 1 AND 237 AND i != 120 AND toDateTime(toStartOfMinute(time)) + 60 <= newest
GROUP BY market, i
HAVING bitAnd(four, bitShiftRight(two, 4)) != 0 AND count() >= 5 * (60 - bitCount(quiet));

-- bars_1m_live(day, first, last): rows of bars_1m, those of a minute that is still forming too. gap: a part of the minute was not seen
-- (a baseline is in it, or its market was silent). b…: as above, before the frame (its own baselines included in p…).
CREATE OR REPLACE VIEW bars_1m_live $on_cluster AS
WITH
    (t -> toInt16(toHour(t) * 60 + toMinute(t) - if(toHour(t) < 12, 570, 660))) AS index_of,
    index_of({first:DateTime('Asia/Shanghai')}) AS first_i, index_of({last:DateTime('Asia/Shanghai')}) AS last_i,
    moved AS (
        SELECT *, notEmpty(bases) AS in_part, max(v) OVER before AS bv, max(a) OVER before AS ba, max(hi) OVER before AS bhi,
               if(bv = 0, inf, min(lo) OVER before) AS blo, max(o) OVER before AS bo, max(pre) OVER before AS bpre,
               greatest(bv, arrayMax(bases.1)) AS pv, greatest(ba, arrayMax(bases.2)) AS pa, greatest(bhi, arrayMax(bases.3)) AS phi,
               least(blo, arrayMin(arrayPushBack(bases.4, inf))) AS plo,
               leadInFrame(i, 1, toInt16(last_i + 1)) OVER (PARTITION BY symbol ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS next_i,
               greatest(v - pv, 0) AS dv, round(greatest(a - pa, 0.), 4) AS da, hi > phi AS rose, lo < plo AS fell,
               dv > 0 OR da > 0 OR rose OR fell AS moves, i = 240 AND continuous <= pv AND (right(symbol, 2), left(symbol, 3)) IN (SELECT market, code FROM trading_codes WHERE closing_call <= {day:Date}) AS auction_only
        FROM tick_frames(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')})
        WINDOW before AS (PARTITION BY symbol ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    ),
    silent AS (SELECT market, i FROM silent_frames(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')})),
    -- up to the next frame with ticks every frame repeats the last price
    filled AS (SELECT *, at_i, at_i = i AS seen, seen AND moves AS trades, seen AND (in_part OR (right(symbol, 3), i) IN silent) AS in_gap FROM moved ARRAY JOIN range(greatest(i, first_i), next_i) AS at_i)
SELECT symbol, toDateTime({day:Date}, 'Asia/Shanghai') + (at_i + if(at_i <= 120, 570, 660)) * 60 AS frame,
       if(trades AND NOT auction_only, first_price, price) AS open,
       if(trades, greatest(if(auction_only, price, top), if(rose, hi, 0.)), price) AS high,
       if(trades, least(if(auction_only, price, bottom), if(fell, lo, inf)), price) AS low,
       price AS close, toInt64(if(trades, dv, 0)) AS vol, if(trades, da, 0.) AS amount,
       CAST(if(trades, 'live', 'filled'), 'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source,
       toUInt32(if(seen, n, 0)) AS ticks, toFloat32(multiIf(NOT seen, if(at_i IN (238, 239) AND (right(symbol, 2), left(symbol, 3)) IN (SELECT market, code FROM trading_codes WHERE closing_call <= {day:Date}), 1., 0.5), in_gap, least(score, 0.5), score)) AS quality_score,
       greatest(bv, v) AS cum_volume, greatest(ba, a) AS cum_amount, greatest(bo, o) AS day_open, greatest(bhi, hi) AS day_high,
       if(least(blo, lo) = inf, 0., least(blo, lo)) AS day_low, 0. AS last_price, greatest(bpre, pre) AS pre_close, in_gap AS gap
FROM filled;
