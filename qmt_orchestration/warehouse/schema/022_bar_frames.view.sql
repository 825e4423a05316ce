-- THE RULE OF A BAR (docs/bars.md), straight from ticks. tick_frames(day, first, last): what the ticks of the frames first … last of
-- a day say, one row per symbol and frame i; and as i = first - 1 what bars_1m carries of the frames before. FINAL: a tick
-- counts once, as its copy of the highest rank.
--   v a hi lo o pre  the day's cumulative volume, amount, high, low, open and previous close in the ticks of the frame
--   top bottom       highest and lowest price of its snapshots; n their number, score the lowest of theirs
--   base…            the same of its baselines: what happened before one is never booked
CREATE OR REPLACE VIEW tick_frames $on_cluster AS
WITH toDateTime({day:Date}, 'Asia/Shanghai') AS midnight, {first:DateTime('Asia/Shanghai')} AS from_frame, {last:DateTime('Asia/Shanghai')} AS to_frame,
     toInt16(intDiv(from_frame - midnight, 60) - if(toHour(from_frame) < 12, 570, 660)) AS first_i,
     if(first_i = 0, midnight, from_frame - 60) AS begins,
     to_frame + multiIf(to_frame = midnight + 41400, 5400, to_frame = midnight + 54000, 300, 0) AS ends
SELECT symbol, frame_i AS i, max(total_volume) AS v, max(t.amount) AS a, max(t.high) AS hi, min(if(t.low > 0, t.low, inf)) AS lo,
       max(t.open) AS o, max(lastClose) AS pre, argMax(lastPrice, moment) AS price, argMinIf(lastPrice, moment, NOT baseline) AS first_price,
       maxIf(lastPrice, NOT baseline) AS top, min(if(baseline, inf, lastPrice)) AS bottom, maxIf(total_volume, time < midnight + 54000) AS continuous,
       maxIf(total_volume, baseline) AS base_v, maxIf(t.amount, baseline) AS base_a, maxIf(t.high, baseline) AS base_hi,
       min(if(baseline AND t.low > 0, t.low, inf)) AS base_lo, countIf(NOT baseline) AS n, n < count() AS in_part, min(t.quality_score) AS score
FROM ticks AS t FINAL
PREWHERE time >= begins AND time < ends
WHERE bucket >= $tick_bucket(begins) AND bucket <= $tick_bucket(ends - 1) AND traded AND i <= 240
GROUP BY symbol, i
UNION ALL
SELECT symbol, toInt16(first_i - 1), cum_volume, cum_amount, day_high, if(day_low > 0, day_low, inf), day_open, pre_close, if(last_price > 0, last_price, close),
       0., 0., inf, 0, 0, 0., 0., inf, 0, 0, 1
FROM bars_1m FINAL
PREWHERE frame = from_frame - if(first_i = 121, 5460, 60)
WHERE first_i > 0 AND cum_volume > 0 AND toYYYYMMDD(frame) = toYYYYMMDD({day:Date});

-- silent_frames(day, first, last): frames in which a market sent nothing for six seconds and more, its feed was dead for a part of them.
-- Judged where it sends five ticks a second and more; not in the opening call, before the break and in the closing call, and not
-- before the frame is over. quiet: one bit for each second without a tick.
CREATE OR REPLACE VIEW silent_frames $on_cluster AS
WITH toDateTime({day:Date}, 'Asia/Shanghai') AS midnight, greatest({first:DateTime('Asia/Shanghai')} - 60, midnight + 34200) AS begins,
     least({last:DateTime('Asia/Shanghai')}, midnight + 53820) AS ends,
     (SELECT max(time) FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) SETTINGS final = 0) AS newest
SELECT right(symbol, 3) AS market, toStartOfMinute(time) + 60 AS frame, groupBitOr(bitShiftLeft(1::UInt64, toSecond(time))) AS busy,
       bitAnd(bitNot(busy), 1152921504606846975) AS quiet, bitAnd(quiet, bitShiftRight(quiet, 1)) AS two, bitAnd(two, bitShiftRight(two, 2)) AS four
FROM ticks
PREWHERE time >= begins AND time < ends
WHERE bucket >= $tick_bucket(begins) AND bucket < ends
GROUP BY market, frame
HAVING frame <= newest AND (frame < midnight + 41400 OR frame > midnight + 46800)
   AND bitAnd(four, bitShiftRight(two, 4)) != 0 AND count() >= 5 * (60 - bitCount(quiet));
