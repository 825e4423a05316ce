-- traded_frames(day, first, last): the frames of tick_frames as bars of their own, with the carry at their end and the next frame that has
-- ticks. b…: what the day's ticks had reached before the frame; p…: its own baselines included. calls: the symbol has a closing call.
CREATE OR REPLACE VIEW traded_frames $on_cluster AS
SELECT symbol, i, price, n, score, in_part,
       max(v) OVER before AS bv, max(a) OVER before AS ba, max(hi) OVER before AS bhi, if(bv = 0, inf, min(lo) OVER before) AS blo,
       max(o) OVER before AS bo, max(pre) OVER before AS bpre,
       greatest(v - greatest(bv, base_v), 0) AS dv, round(greatest(a - greatest(ba, base_a), 0.), 4) AS da,
       hi > greatest(bhi, base_hi) AS rose, lo < least(blo, base_lo) AS fell, dv > 0 OR da > 0 OR rose OR fell AS trades,
       (right(symbol, 2), left(symbol, 3)) IN (SELECT market, code FROM trading_codes WHERE closing_call <= {day:Date}) AS calls,
       i = 240 AND continuous <= greatest(bv, base_v) AND calls AS auction_only,
       if(trades AND NOT auction_only, first_price, price) AS open,
       if(trades, greatest(if(auction_only, price, top), if(rose, hi, 0.)), price) AS high,
       if(trades, least(if(auction_only, price, bottom), if(fell, lo, inf)), price) AS low,
       greatest(bv, v) AS cum_volume, greatest(ba, a) AS cum_amount, greatest(bo, o) AS day_open, greatest(bhi, hi) AS day_high,
       if(least(blo, lo) = inf, 0., least(blo, lo)) AS day_low, greatest(bpre, pre) AS pre_close,
       leadInFrame(i, 1, toInt16(241)) OVER (PARTITION BY symbol ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS next_i
FROM tick_frames(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')})
WINDOW before AS (PARTITION BY symbol ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING);

-- bars_1m_live(day, first, last): rows of bars_1m, those of a minute that is still forming too. Up to the next frame with ticks every frame
-- repeats the last price. gap: a part of the minute was not seen (a baseline is in it, or its market was silent).
CREATE OR REPLACE VIEW bars_1m_live $on_cluster AS
WITH toDateTime({day:Date}, 'Asia/Shanghai') AS midnight,
     toInt16(intDiv({first:DateTime('Asia/Shanghai')} - midnight, 60) - if(toHour({first:DateTime('Asia/Shanghai')}) < 12, 570, 660)) AS first_i,
     toInt16(intDiv({last:DateTime('Asia/Shanghai')} - midnight, 60) - if(toHour({last:DateTime('Asia/Shanghai')}) < 12, 570, 660)) AS last_i,
     at_i = i AS seen, seen AND trades AS is_live, seen AND (in_part OR (right(symbol, 3), frame) IN (
         SELECT market, frame FROM silent_frames(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')}))) AS gap
SELECT symbol, midnight + (at_i + if(at_i <= 120, 570, 660)) * 60 AS frame,
       if(is_live, t.open, price) AS open, if(is_live, t.high, price) AS high, if(is_live, t.low, price) AS low, price AS close,
       toInt64(if(is_live, dv, 0)) AS vol, if(is_live, da, 0.) AS amount,
       CAST(if(is_live, 'live', 'filled'), 'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source, toUInt32(if(seen, n, 0)) AS ticks,
       toFloat32(multiIf(NOT seen, if(calls AND at_i IN (238, 239), 1., 0.5), gap, least(score, 0.5), score)) AS quality_score,
       cum_volume, cum_amount, day_open, day_high, day_low, 0. AS last_price, pre_close, gap
FROM traded_frames(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')}) AS t
ARRAY JOIN range(greatest(i, first_i), least(next_i, last_i + 1)) AS at_i;
