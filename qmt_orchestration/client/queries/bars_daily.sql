-- Daily bars of some symbols (none = all) as the terminal counts them: with after-hours trading.
SELECT toString(b.symbol) AS symbol, frame, open, high, low, close, vol + after_hours_vol AS vol, amount + after_hours_amount AS amount,
       toString(b.source) AS source, pre_close, suspended
FROM bars_1d AS b FINAL
WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')}
  AND (empty({symbols:Array(String)}) OR b.symbol IN {symbols:Array(String)})
ORDER BY symbol, frame
