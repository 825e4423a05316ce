-- The user's names and columns: minute bars of the 241-row day.
CREATE OR REPLACE VIEW minute_bars $on_cluster AS
SELECT symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score, version FROM bars_1m FINAL;

-- The 240-row day of other vendors: the opening call is part of 09:31. A symbol without a trade in 09:31 has the call there alone.
CREATE OR REPLACE VIEW minute_bars_240 $on_cluster AS
SELECT symbol, label AS frame, argMin(b.open, b.frame) AS open, max(b.high) AS high, min(b.low) AS low, argMax(b.close, b.frame) AS close,
       sum(b.vol) AS vol, round(sum(b.amount), 4) AS amount,
       CAST(multiIf(countIf(b.source = 'history') > 0, 'history', countIf(b.source = 'live') > 0, 'live', 'filled'),
            'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS source,
       toUInt32(sum(b.ticks)) AS ticks, min(b.quality_score) AS quality_score, max(b.version) AS version
FROM (SELECT *, if(toHour(frame) = 9 AND toMinute(frame) = 30, frame + 60, frame) AS label FROM bars_1m FINAL) AS b
GROUP BY symbol, label;

-- QMT's own minute bars, vol in shares.
CREATE OR REPLACE VIEW qmt_bars_1m $on_cluster AS
SELECT symbol, frame, open, high, low, close, vol, amount FROM qmt_bars FINAL WHERE period = '1m';

-- The newest snapshot of each symbol on the newest day that has ticks: last price (0 = not traded yet), the day's values so far.
-- Only each symbol's newest bucket is read.
CREATE OR REPLACE VIEW latest_ticks $on_cluster AS
WITH (SELECT toDate(max(time)) FROM ticks SETTINGS final = 0) AS newest
SELECT symbol, max(t.time) AS time, argMaxIf(lastPrice, moment, traded) AS last_price, max(t.open) AS open, max(t.high) AS high,
       if(min(if(t.low > 0, t.low, inf)) = inf, 0., min(if(t.low > 0, t.low, inf))) AS low, max(lastClose) AS last_close,
       maxIf(total_volume, traded) AS vol, maxIf(t.amount, traded) AS amount, max(openInt = 1) AS suspended
FROM ticks AS t FINAL
WHERE NOT withdrawn AND toYYYYMMDD(t.time) = toYYYYMMDD(newest)
  AND (symbol, bucket) IN (SELECT symbol, max(bucket) FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD(newest) GROUP BY symbol SETTINGS final = 0)
GROUP BY symbol;
