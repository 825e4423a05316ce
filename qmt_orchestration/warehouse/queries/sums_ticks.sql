-- Rows, content and newest moment of storing of a day's ticks, per symbol.
SELECT symbol, count() AS rows, toUInt64(max(toUnixTimestamp64Micro(stored_at))) AS newest,
       sum(cityHash64(symbol, time, lastPrice, open, high, low, lastClose, amount, volume, pvolume, total_volume, flags, quality_score)) AS content
FROM {table:Identifier} FINAL WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) GROUP BY symbol
