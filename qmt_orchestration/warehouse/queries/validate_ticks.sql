-- Per symbol of a day, up to the last closed frame: the minute bars of the rule against the last snapshot that belongs to them, the
-- shape of the day (a row for each frame from the first trade on), and after-hours growth against the daily row.
WITH
    if(abs(volume * 100 - pvolume) <= 100, pvolume, volume * 100) AS shares,
    t AS (
        SELECT symbol,
               argMaxIf((shares, amount, high, low), (time, shares), time < {until:DateTime('Asia/Shanghai')}) AS snapshot,
               max(shares) - snapshot.1 AS after_hours
        FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND lastPrice > 0 AND shares > 0
        GROUP BY symbol HAVING snapshot.1 > 0
    ),
    b AS (
        SELECT symbol, toInt64(sum(x.vol)) AS vol, sum(x.amount) AS amount, max(x.high) AS high, min(x.low) AS low,
               toInt64(count()) AS n, max(x.frame) AS last,
               countIf(x.high < greatest(x.open, x.close) OR x.low > least(x.open, x.close)) AS broken,
               toHour(min(x.frame)) * 60 + toMinute(min(x.frame)) AS first_minute, toHour(last) * 60 + toMinute(last) AS last_minute,
               toInt64(if(last_minute <= 690, last_minute - 570, last_minute - 660))
                 - toInt64(if(first_minute <= 690, first_minute - 570, first_minute - 660)) + 1 AS wanted
        FROM bars_1m AS x WHERE toYYYYMMDD(x.frame) = toYYYYMMDD({day:Date}) GROUP BY symbol
    ),
    d AS (SELECT symbol, after_hours_vol FROM bars_1d WHERE toDate(frame) = {day:Date})
SELECT toString(t.symbol) AS symbol,
       b.n = b.wanted AND b.last = {last:DateTime('Asia/Shanghai')} AND b.broken = 0 AS rows_ok,
       b.vol = snapshot.1 AS vol_ok, abs(b.amount - snapshot.2) < 0.01 AS amount_ok, b.high = snapshot.3 AS high_ok, b.low = snapshot.4 AS low_ok,
       d.after_hours_vol = t.after_hours OR {until:DateTime('Asia/Shanghai')} < {last:DateTime('Asia/Shanghai')} + 300 AS after_hours_ok,
       concat('rows ', toString(b.n), ' of ', toString(b.wanted), ', volume ', toString(b.vol), ' for ', toString(snapshot.1),
              ', amount ', toString(b.amount), ' for ', toString(snapshot.2), ', high ', toString(b.high), ' for ', toString(snapshot.3),
              ', low ', toString(b.low), ' for ', toString(snapshot.4), ', after hours ', toString(d.after_hours_vol), ' for ',
              toString(t.after_hours)) AS found
FROM t LEFT JOIN b ON t.symbol = b.symbol LEFT JOIN d ON t.symbol = d.symbol
ORDER BY symbol
