-- The minute bars of the frames first … last by the rule. A row repaired from QMT's history stays with the carry of our ticks
-- while ours has nothing better: no snapshot in that minute, a part of it not seen, or the same snapshots as when it was repaired.
SELECT symbol, frame, bar.1 AS open, bar.2 AS high, bar.3 AS low, bar.4 AS close, bar.5 AS vol, bar.6 AS amount, bar.7 AS source,
       bar.8 AS ticks, bar.9 AS quality_score, cum_volume, cum_amount, day_open, day_high, day_low,
       if(kept, price, 0.) AS last_price, pre_close
FROM (
    SELECT r.*, r.close AS price, k.repaired AND (r.ticks = 0 OR gap OR (r.ticks, r.cum_volume) = (k.bar.8, k.reached)) AS kept,
           if(kept, k.bar, (open, high, low, close, vol, amount, source, ticks, quality_score)) AS bar
    FROM bars_1m_live(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')}) AS r
    LEFT JOIN (
        SELECT symbol, frame, (open, high, low, close, vol, amount, source, ticks, quality_score) AS bar, cum_volume AS reached, 1 AS repaired FROM bars_1m FINAL
        WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')} AND source = 'history'
    ) AS k ON r.symbol = k.symbol AND r.frame = k.frame
)
