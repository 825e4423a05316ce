-- Minute bars of the 240-row day of some symbols (none = all): the opening call is part of 09:31. frame is the start of the minute.
SELECT symbol, label AS frame, argMin(b.open, b.at) AS open, max(b.high) AS high, min(b.low) AS low, argMax(b.close, b.at) AS close,
       sum(b.vol) AS vol, round(sum(b.amount), 4) AS amount
FROM (
    SELECT toString(m.symbol) AS symbol, frame AS at, if(toHour(frame) * 60 + toMinute(frame) = 570, frame, frame - 60) AS label,
           open, high, low, close, vol, amount
    FROM bars_1m AS m FINAL
    WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
      AND (empty({symbols:Array(String)}) OR m.symbol IN {symbols:Array(String)})
) AS b
GROUP BY symbol, label
ORDER BY symbol, label
