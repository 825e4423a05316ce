-- Per symbol of a recorded day, all minutes made: the bars against the recording's own snapshots, each flag 1 = right.
--   kind   full = seen from the opening call to the close, part = recorded for a part of the day, idle = no trade seen
--   late   recorded from the middle of the day: its first snapshot is a baseline
--   base   what is booked in no minute: the growth of a baseline's minute up to it, and all of the day before it
--   last   the last snapshot that belongs to a minute (before 15:05): what the minutes must add up to
--   final  the snapshot whose values are the day's: `last`, or a later one where that can hold no after-hours trading
WITH
    seen AS (
        SELECT symbol, time, total_volume, (total_volume, amount, high, low, open, lastPrice) AS reached, frame_i AS i, traded, baseline, moment, traded AND i <= 240 AS counts,
               (right(symbol, 2), left(symbol, 3)) IN (SELECT market, code FROM trading_codes WHERE late <= {day:Date}) AS after_hours_board
        FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND NOT withdrawn
    ),
    t AS (
        SELECT symbol, countIf(counts) AS trades, min(s.time) AS since, maxIf(s.time, i <= 240) AS until, argMinIf(s.baseline, moment, traded) AS late,
               argMaxIf(reached, moment, counts) AS last, toHour(until) >= 15 AS closed,
               if(max(after_hours_board) AND closed, last, argMaxIf(reached, moment, traded)) AS final,
               maxIf(total_volume, traded) - final.1 AS after_hours, maxIf(total_volume, traded AND i = 0) AS opening, minIf(i, traded) AS first_i,
               multiIf(trades = 0, 'idle', late OR min(i) > 1 OR NOT closed, 'part', 'full') AS kind
        FROM seen AS s GROUP BY symbol
    ),
    base AS (
        SELECT symbol, sum(greatest(base_v - v, 0)) AS vol, sum(greatest(base_a - a, 0.)) AS amount
        FROM (SELECT symbol, maxIf(total_volume, baseline) AS base_v, maxIf(reached.2, baseline) AS base_a,
                     max(max(total_volume)) OVER before AS v, max(max(reached.2)) OVER before AS a
              FROM seen WHERE counts GROUP BY symbol, i
              WINDOW before AS (PARTITION BY symbol ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) GROUP BY symbol
    ),
    b AS (
        SELECT symbol, toInt64(sum(x.vol)) AS vol, sum(x.amount) AS amount, max(x.high) AS high, min(x.low) AS low, toInt64(count()) AS n,
               countIf(x.high < greatest(x.open, x.close) OR x.low > least(x.open, x.close)) AS broken, min(m.i) AS first_i, max(x.frame) AS end,
               max(m.i) - min(m.i) + 1 AS wanted, sumIf(x.vol, m.i = 0) AS call_vol,
               countIf(m.i = 0 AND NOT (x.open = x.high AND x.high = x.low AND x.low = x.close)) AS call_moves
        FROM bars_1m AS x INNER JOIN trading_minutes(day = {day:Date}) AS m ON x.frame = m.frame
        WHERE toYYYYMMDD(x.frame) = toYYYYMMDD({day:Date}) GROUP BY symbol
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
       if(kind = 'idle', b.n = 0, b.n = b.wanted AND b.end = {last:DateTime('Asia/Shanghai')} AND b.broken = 0 AND b.first_i = t.first_i) AS rows_ok,
       if(late, b.call_vol = 0, b.call_vol = opening AND b.call_moves = 0) AS call_ok,
       b.vol = last.1 - base.vol AS vol_ok, abs(b.amount - (last.2 - base.amount)) < 0.01 AS amount_ok,
       if(base.vol > 0, b.high <= last.3, b.high = last.3) AS high_ok, if(base.vol > 0, b.low >= last.4, b.low = last.4) AS low_ok,
       wide.v5 = b.vol AND wide.v30 = b.vol AND abs(wide.a5 - b.amount) < 0.01 AND abs(wide.a30 - b.amount) < 0.01 AND wide.h = b.high
         AND wide.l = b.low AND (kind != 'full' OR b.n < 241 OR (wide.n5 = 48 AND wide.n30 = 8)) AS wide_ok,
       others.v240 = b.vol AND (b.n < 241 OR others.n240 = 240) AS others_ok,
       if(kind = 'idle', d.vol = 0, (d.open, d.high, d.low, d.close, d.vol) = (final.5, final.3, final.4, final.6, final.1) AND abs(d.amount - final.2) < 0.01) AS day_ok,
       d.after_hours_vol = t.after_hours OR kind = 'idle' AS after_hours_ok,
       formatDateTime(t.since, '%H:%i:%S', 'Asia/Shanghai') AS since, formatDateTime(t.until, '%H:%i:%S', 'Asia/Shanghai') AS until,
       concat('rows ', toString(b.n), ' of ', toString(b.wanted), ', minutes ', toString((b.vol, b.amount, b.high, b.low)), ' for ', toString((last.1 - base.vol, last.2 - base.amount, last.3, last.4)),
              ', opening call ', toString(b.call_vol), ' for ', toString(opening), ', 5m ', toString(wide.v5), ', 30m ', toString(wide.v30), ', day ',
              toString((d.open, d.high, d.low, d.close, d.vol, d.amount)), ' for ', toString(final), ', after hours ', toString(d.after_hours_vol), ' for ', toString(t.after_hours)) AS found
FROM t LEFT JOIN b ON t.symbol = b.symbol LEFT JOIN wide ON t.symbol = wide.symbol LEFT JOIN others ON t.symbol = others.symbol
       LEFT JOIN d ON t.symbol = d.symbol LEFT JOIN base ON t.symbol = base.symbol
ORDER BY symbol
