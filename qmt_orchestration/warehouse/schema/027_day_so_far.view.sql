-- bars_1d_live(day): the daily bar of each traded symbol as far as the day has come, second by second: what bars_1m carries, and the ticks
-- of the buckets from the one before its newest frame on. as_of: the newest tick or frame in it. No more than half the score: a part of
-- a day is no day. Late trading (trading_codes) is left out, as in vol of bars_1d.
CREATE OR REPLACE VIEW bars_1d_live $on_cluster AS
WITH
    (SELECT max(frame) FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) SETTINGS final = 0) AS newest,
    (SELECT max(i) FROM trading_minutes(day = {day:Date}) WHERE frame <= newest) AS newest_i,
    seen AS (
        SELECT symbol, max(t.time) AS reached, max(total_volume) AS v, max(t.amount) AS a, argMax(t.open, moment) AS o, max(t.high) AS h,
               min(if(t.low > 0, t.low, inf)) AS l, argMax(lastPrice, moment) AS c, max(lastClose) AS pre,
               countIf(NOT baseline AND (newest = toDateTime(0) OR frame_i > newest_i)) AS n, min(t.quality_score) AS score
        FROM ticks AS t FINAL
        WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND bucket + 600 >= $tick_bucket(newest) AND traded AND frame_i <= 240
        GROUP BY symbol
        UNION ALL
        SELECT symbol, toDateTime64(max(frame), 3, 'Asia/Shanghai'), max(cum_volume), max(cum_amount), argMax(day_open, frame), max(day_high),
               min(if(day_low > 0, day_low, inf)), argMax(if(last_price > 0, last_price, b.close), frame), max(b.pre_close), sum(b.ticks), min(b.quality_score)
        FROM bars_1m AS b FINAL WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) AND cum_volume > 0 GROUP BY symbol
    )
SELECT symbol, toDateTime({day:Date}, 'Asia/Shanghai') + 54000 AS frame, argMax(o, v) AS open, max(h) AS high, if(min(l) = inf, 0., min(l)) AS low,
       argMax(c, (v, reached)) AS close, toInt64(max(v)) AS vol, round(max(a), 4) AS amount,
       CAST('live', 'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source, toUInt32(sum(n)) AS ticks,
       least(min(score), 0.5)::Float32 AS quality_score, max(pre) AS pre_close, max(reached) AS as_of
FROM seen GROUP BY symbol;
