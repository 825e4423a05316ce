-- The day of each traded symbol from its ticks: what bars_1m carries in its last frame, and the ticks from 15:00 on.
-- closed: a snapshot of 15:00 or later was seen; alone: none before 15:05, so after-hours trading cannot be told apart in it.
-- Growth after 15:05 (of a repo: after 15:00) is late trading where there is any (after_hours_*, never in vol), else the day's late values.
CREATE OR REPLACE VIEW day_of_ticks $on_cluster AS
WITH
    (SELECT max(frame) FROM trading_minutes(day = {day:Date})) AS close_time,
    reached AS (
        SELECT symbol, argMax((cum_volume, cum_amount, day_open, day_high, day_low, if(last_price > 0, last_price, b.close)), frame) AS day, max(b.pre_close) AS pre
        FROM bars_1m AS b FINAL WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) AND cum_volume > 0
          AND (SELECT count() FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) SETTINGS final = 0) > 0
        GROUP BY symbol
    ),
    late AS (
        SELECT symbol, countIf(frame_i <= 240) AS at_close, countIf(frame_i = 241 AND traded) AS n,
               argMaxIf((total_volume, t.amount, t.open, t.high, t.low, lastPrice), moment, traded) AS day
        FROM ticks AS t FINAL
        WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND bucket >= $tick_bucket(close_time) AND time >= close_time AND NOT withdrawn
        GROUP BY symbol
    )
SELECT r.symbol AS symbol, l.at_close > 0 OR l.n > 0 AS closed, closed AND l.at_close = 0 AND (right(symbol, 2), left(symbol, 3)) NOT IN (SELECT market, code FROM trading_codes WHERE ends > 900) AS alone,
       (right(symbol, 2), left(symbol, 3)) IN (SELECT market, code FROM trading_codes WHERE late <= {day:Date}) AS after_hours,
       l.n > 0 AND l.day.1 >= r.day.1 AND (alone OR NOT after_hours) AS later, if(later, l.day, r.day) AS d,
       d.3 AS open, greatest(r.day.4, d.4) AS high, if(d.5 > 0 AND r.day.5 > 0, least(r.day.5, d.5), r.day.5) AS low, d.6 AS close, d.1 AS vol, round(d.2, 4) AS amount, r.pre AS pre_close,
       if(later OR l.n = 0, 0, greatest(l.day.1 - r.day.1, 0)) AS after_hours_vol,
       if(later OR l.n = 0, 0., greatest(round(l.day.2 - amount, 4), 0.)) AS after_hours_amount
FROM reached AS r LEFT JOIN late AS l ON r.symbol = l.symbol;

-- Symbols that sent ticks on a day and did not trade: previous close, and whether a phase said suspended.
CREATE OR REPLACE VIEW day_without_trade $on_cluster AS
SELECT symbol, max(lastClose) AS pre, toUInt8(max(openInt = 1)) AS halted
FROM ticks FINAL
WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND NOT withdrawn
  AND symbol IN (
      SELECT symbol FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date})
        AND symbol NOT IN (SELECT symbol FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) AND cum_volume > 0)
      GROUP BY symbol SETTINGS final = 0)
GROUP BY symbol HAVING pre > 0 AND max(traded AND frame_i <= 240) = 0;
