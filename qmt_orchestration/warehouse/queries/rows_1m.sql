-- The minute bars of the frames first … last by the rule. A row repaired from QMT's history stays when ours has nothing better (no
-- snapshot in that minute, or a gap in it), with the carry of our ticks.
SELECT r.symbol AS symbol, r.frame AS frame, if(k.kept AND (r.ticks = 0 OR gap), k.open, r.open) AS open,
       if(k.kept AND (r.ticks = 0 OR gap), k.high, r.high) AS high, if(k.kept AND (r.ticks = 0 OR gap), k.low, r.low) AS low,
       if(k.kept AND (r.ticks = 0 OR gap), k.close, r.close) AS close, if(k.kept AND (r.ticks = 0 OR gap), k.vol, r.vol) AS vol,
       if(k.kept AND (r.ticks = 0 OR gap), k.amount, r.amount) AS amount, if(k.kept AND (r.ticks = 0 OR gap), k.source, r.source) AS source,
       if(k.kept AND (r.ticks = 0 OR gap), k.ticks, r.ticks) AS ticks,
       if(k.kept AND (r.ticks = 0 OR gap), k.quality_score, r.quality_score) AS quality_score,
       cum_volume, cum_amount, day_open, day_high, day_low, last_price, pre_close
FROM bars_1m_live(day = {day:Date}, first = {first:DateTime('Asia/Shanghai')}, last = {last:DateTime('Asia/Shanghai')}) AS r
LEFT JOIN (
    SELECT symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score, 1 AS kept FROM bars_1m FINAL
    WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')} AND source = 'history'
) AS k ON r.symbol = k.symbol AND r.frame = k.frame
