-- Rows of the frames first … last that the day's ticks no longer give, of symbols with a withdrawn tick that day: no trade is left
-- of them. QMT's rows stay.
SELECT DISTINCT symbol, frame FROM {table:Identifier} FINAL
WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')} AND source != 'history'
  AND symbol IN (SELECT symbol FROM ticks FINAL WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND flags >= 128 AND withdrawn)
  AND (symbol, frame) NOT IN (SELECT symbol, frame FROM ($rows))
SETTINGS final = 0, optimize_aggregation_in_order = 1
