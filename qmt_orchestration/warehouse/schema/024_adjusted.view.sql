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
