-- The minute bars of the frames first … last by the rule. A row repaired from QMT's history stays with the carry of our ticks
-- while ours has nothing better: no snapshot in that minute, a part of it not seen, or the same snapshots as when it was repaired.
-- A bar replaced by hand (bar_overrides) goes before all, with score 0.5.
SELECT symbol, frame, bar.1 AS open, bar.2 AS high, bar.3 AS low, bar.4 AS close, bar.5 AS vol, bar.6 AS amount, bar.7 AS source,
       bar.8 AS ticks, bar.9 AS quality_score, cum_volume, cum_amount, day_open, day_high, day_low,
       if(kept OR replaced, price, 0.) AS last_price, pre_close
FROM (
    SELECT r.symbol AS symbol, r.frame AS frame, r.cum_volume AS cum_volume, r.cum_amount AS cum_amount, r.day_open AS day_open, r.day_high AS day_high,
           r.day_low AS day_low, r.pre_close AS pre_close, r.close AS price, m.active = 1 AS replaced,
           k.repaired AND (r.ticks = 0 OR r.gap OR (r.ticks, r.cum_volume) = (k.bar.8, k.reached)) AS kept,
           multiIf(replaced, (m.b.1, m.b.2, m.b.3, m.b.4, m.b.5, m.b.6, by_hand, r.ticks, toFloat32(0.5)),
                   kept, k.bar, (r.open, r.high, r.low, r.close, r.vol, r.amount, r.source, r.ticks, r.quality_score)) AS bar,
           CAST('history', 'Enum8(\'live\' = 1, \'history\' = 2, \'filled\' = 3)') AS by_hand
    FROM bars_1m_live(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')}) AS r
    LEFT JOIN (
        SELECT symbol, frame, (open, high, low, close, vol, amount, source, ticks, quality_score) AS bar, cum_volume AS reached, 1 AS repaired FROM bars_1m FINAL
        WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')} AND source = 'history'
          AND (symbol, frame) NOT IN (SELECT symbol, frame FROM bar_overrides WHERE toDate(frame) = {day:Date})
    ) AS k ON r.symbol = k.symbol AND r.frame = k.frame
    LEFT JOIN (
        SELECT symbol, frame, argMax(o.active, at) AS active, argMax((o.open, o.high, o.low, o.close, o.vol, o.amount), at) AS b
        FROM bar_overrides AS o WHERE toDate(frame) = {day:Date} GROUP BY symbol, frame
    ) AS m ON r.symbol = m.symbol AND r.frame = m.frame
)
