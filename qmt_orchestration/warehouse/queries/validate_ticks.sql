-- Per symbol of a recorded day, all minutes made: the bars against the recording's own snapshots, each flag 1 = right.
--   kind   full = seen from the opening call to the close, part = recorded for a part of the day, idle = no trade seen
--   base   0, or in a recording from the middle of the day its first snapshot: nothing before it is booked
--   last   the last snapshot that belongs to a minute (before 15:05); its day's values are what the bars must add up to
WITH
    toDateTime64({day:Date}, 3, 'Asia/Shanghai') AS midnight,
    toInt64({last_minute:UInt16}) AS last_minute,
    seen AS (
        SELECT symbol, time, lastPrice AS price, open AS o, high AS h, low AS l, amount AS a, flags,
               if(abs(volume * 100 - pvolume) <= 100, pvolume, volume * 100) AS shares, price > 0 AND shares > 0 AS traded,
               dateDiff('second', midnight, time) AS second
        FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date})
    ),
    t AS (
        SELECT symbol, countIf(traded AND second < 54300) AS trades, min(second) AS from_second, maxIf(second, second < 54300) AS to_second,
               maxIf((shares, a, h, l), traded AND bitAnd(flags, 1) = 1) AS base,
               argMaxIf((shares, a, h, l, o, price), (time, shares), traded AND second < 54300) AS last,
               maxIf(shares, traded) - last.1 AS after_hours, maxIf(shares, traded AND second < 34200) AS opening,
               minIf(second, traded) AS first_trade,
               multiIf(trades = 0, 'idle', base.1 > 0 OR from_second > 34260 OR to_second < 54000, 'part', 'full') AS kind
        FROM seen GROUP BY symbol
    ),
    b AS (
        SELECT symbol, toInt64(sum(x.vol)) AS vol, sum(x.amount) AS amount, max(x.high) AS high, min(x.low) AS low, toInt64(count()) AS n,
               countIf(x.high < greatest(x.open, x.close) OR x.low > least(x.open, x.close)) AS broken,
               toInt64(min(toHour(x.frame) * 60 + toMinute(x.frame))) AS first_minute, toInt64(max(toHour(x.frame) * 60 + toMinute(x.frame))) AS end_minute,
               if(end_minute <= 690, end_minute - 570, end_minute - 660) - if(first_minute <= 690, first_minute - 570, first_minute - 660) + 1 AS wanted,
               sumIf(x.vol, x.frame = midnight + 34200) AS call_vol,
               countIf(x.frame = midnight + 34200 AND NOT (x.open = x.high AND x.high = x.low AND x.low = x.close)) AS call_moves
        FROM bars_1m AS x WHERE toYYYYMMDD(x.frame) = toYYYYMMDD({day:Date}) GROUP BY symbol
    ),
    wide AS (
        SELECT symbol, countIf(p = 5) AS n5, countIf(p = 30) AS n30, sumIf(w.vol, p = 5) AS v5, sumIf(w.vol, p = 30) AS v30,
               sumIf(w.amount, p = 5) AS a5, sumIf(w.amount, p = 30) AS a30, max(w.high) AS h, min(w.low) AS l
        FROM (SELECT *, 5 AS p FROM bars_5m UNION ALL SELECT *, 30 AS p FROM bars_30m) AS w
        WHERE toDate(w.frame) = {day:Date} GROUP BY symbol
    ),
    others AS (SELECT symbol, toInt64(count()) AS n240, toInt64(sum(m.vol)) AS v240 FROM minute_bars_240 AS m WHERE toDate(m.frame) = {day:Date} GROUP BY symbol),
    d AS (SELECT symbol, open, high, low, close, vol, amount, after_hours_vol FROM bars_1d WHERE toDate(frame) = {day:Date})
SELECT toString(t.symbol) AS symbol, kind,
       if(kind = 'idle', b.n = 0, b.n = b.wanted AND b.end_minute = last_minute AND b.broken = 0
          AND b.first_minute = multiIf(first_trade < 34200, 570, first_trade < 41400, intDiv(first_trade, 60) + 1, first_trade < 46800, 690,
                                       least(intDiv(first_trade, 60) + 1, 900))) AS rows_ok,
       if(base.1 > 0, b.call_vol = 0, b.call_vol = opening AND b.call_moves = 0) AS call_ok,
       b.vol = last.1 - base.1 AS vol_ok, abs(b.amount - (last.2 - base.2)) < 0.01 AS amount_ok,
       if(base.1 > 0, b.high <= last.3, b.high = last.3) AS high_ok, if(base.1 > 0, b.low >= last.4, b.low = last.4) AS low_ok,
       wide.v5 = b.vol AND wide.v30 = b.vol AND abs(wide.a5 - b.amount) < 0.01 AND abs(wide.a30 - b.amount) < 0.01 AND wide.h = b.high
         AND wide.l = b.low AND (kind != 'full' OR b.n < 241 OR (wide.n5 = 48 AND wide.n30 = 8)) AS wide_ok,
       others.v240 = b.vol AND (b.n < 241 OR others.n240 = 240) AS others_ok,
       if(kind = 'idle', d.vol = 0, (d.open, d.high, d.low, d.close, d.vol) = (last.5, last.3, last.4, last.6, last.1) AND abs(d.amount - last.2) < 0.01) AS day_ok,
       d.after_hours_vol = t.after_hours OR kind = 'idle' AS after_hours_ok,
       formatDateTime(midnight + from_second, '%H:%i:%S', 'Asia/Shanghai') AS since, formatDateTime(midnight + to_second, '%H:%i:%S', 'Asia/Shanghai') AS until,
       concat('rows ', toString(b.n), ' of ', toString(b.wanted), ', volume ', toString(b.vol), ' for ', toString(last.1 - base.1), ', amount ',
              toString(b.amount), ' for ', toString(last.2 - base.2), ', high ', toString(b.high), ' for ', toString(last.3), ', low ',
              toString(b.low), ' for ', toString(last.4), ', opening call ', toString(b.call_vol), ' for ', toString(opening), ', 5m ',
              toString(wide.v5), ', 30m ', toString(wide.v30), ', day ', toString((d.open, d.high, d.low, d.close, d.vol, d.amount)), ' for ',
              toString((last.5, last.3, last.4, last.6, last.1, last.2)), ', after hours ', toString(d.after_hours_vol), ' for ', toString(t.after_hours)) AS found
FROM t LEFT JOIN b ON t.symbol = b.symbol LEFT JOIN wide ON t.symbol = wide.symbol LEFT JOIN others ON t.symbol = others.symbol
       LEFT JOIN d ON t.symbol = d.symbol
ORDER BY symbol
