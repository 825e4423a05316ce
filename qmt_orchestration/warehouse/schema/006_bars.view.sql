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
FROM (SELECT *, if(toHour(frame) * 60 + toMinute(frame) = 570, frame + 60, frame) AS label FROM bars_1m FINAL) AS b
GROUP BY symbol, label;

-- QMT's own minute bars, vol in shares.
CREATE OR REPLACE VIEW qmt_bars_1m $on_cluster AS
SELECT symbol, frame, open, high, low, close, vol, amount FROM qmt_bars FINAL WHERE period = '1m';

-- Daily bars adjusted by QMT's dated ratios (get_divid_factors' dr, xtdata.md): factor of an ex-date = dr.
-- back: prices from an ex-date on are multiplied by every dr up to that day (the first day stays as it was).
-- front: prices before an ex-date are divided by every later dr (the last day stays as it is). Volume and amount stay raw.
CREATE OR REPLACE VIEW daily_factors $on_cluster AS
SELECT b.symbol AS symbol, b.frame AS frame,
       arrayProduct(arrayPushBack(arrayMap(f -> f.2, arrayFilter(f -> f.1 <= toDate(b.frame), f.factors)), 1.)) AS back,
       1 / arrayProduct(arrayPushBack(arrayMap(f -> f.2, arrayFilter(f -> f.1 > toDate(b.frame), f.factors)), 1.)) AS front
FROM (SELECT symbol, frame FROM bars_1d FINAL) AS b
LEFT JOIN (SELECT symbol, groupArray((ex_date, dr)) AS factors FROM adjust_factors FINAL WHERE dr > 0 GROUP BY symbol) AS f
  ON b.symbol = f.symbol;

CREATE OR REPLACE VIEW daily_bars_front $on_cluster AS
SELECT b.symbol AS symbol, b.frame AS frame, open * front AS open, high * front AS high, low * front AS low, close * front AS close,
       vol, amount, source, suspended, front AS factor
FROM (SELECT symbol, frame, b.open AS open, b.high AS high, b.low AS low, b.close AS close, vol, amount, source, suspended FROM bars_1d AS b FINAL) AS b
INNER JOIN daily_factors AS f ON b.symbol = f.symbol AND b.frame = f.frame;

CREATE OR REPLACE VIEW daily_bars_back $on_cluster AS
SELECT b.symbol AS symbol, b.frame AS frame, open * back AS open, high * back AS high, low * back AS low, close * back AS close,
       vol, amount, source, suspended, back AS factor
FROM (SELECT symbol, frame, b.open AS open, b.high AS high, b.low AS low, b.close AS close, vol, amount, source, suspended FROM bars_1d AS b FINAL) AS b
INNER JOIN daily_factors AS f ON b.symbol = f.symbol AND b.frame = f.frame;

-- The newest snapshot of each symbol on the newest day that has ticks: last price (0 = not traded yet), the day's values so far.
CREATE OR REPLACE VIEW latest_ticks $on_cluster AS
SELECT symbol, max(last_time) AS time, argMaxMerge(s.last_price) AS last_price, max(day_open) AS open, max(day_high) AS high,
       if(min(day_low) = inf, 0., min(day_low)) AS low, max(s.pre_close) AS last_close, max(cum_volume) AS vol, max(cum_amount) AS amount,
       max(s.suspended) AS suspended
FROM bar_states_1m AS s
WHERE toYYYYMMDD(frame) = (SELECT toYYYYMMDD(max(frame)) FROM bar_states_1m)
GROUP BY symbol;
