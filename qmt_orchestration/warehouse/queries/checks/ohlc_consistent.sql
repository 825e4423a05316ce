-- Prices are positive and finite, low <= open, close <= high, volume and amount are not negative and are zero together. (Where
-- shares come from whole lots, as in QMT's history, a trade of less than a lot is an amount without volume: allowed up to a lot.)
-- A suspended symbol's daily row repeats one price and passes.
-- measure: bars that break a rule
WITH broken AS (
  SELECT symbol, frame, open, high, low, close, vol, amount,
         multiIf(NOT (isFinite(open) AND isFinite(high) AND isFinite(low) AND isFinite(close)), 'a price is not finite',
                 least(open, high, low, close) <= 0, 'a price is not positive',
                 low > least(open, close), 'low above open or close',
                 high < greatest(open, close), 'high below open or close',
                 vol < 0 OR amount < 0 OR NOT isFinite(amount), 'volume or amount negative',
                 vol > 0 AND amount < 0.005, 'volume without amount',
                 vol = 0 AND amount > 100 * high + 1, 'amount without volume',
                 '') AS reason
  FROM {table:Identifier}
  WHERE frame >= {first:DateTime('Asia/Shanghai')} AND frame <= {last:DateTime('Asia/Shanghai')} AND reason != ''
)
SELECT
  toFloat64(count()) AS measure,
  'low ≤ open, close ≤ high, all positive' AS expected,
  if(count() = 0, 'every bar consistent', concat(toString(count()), ' bars of ', toString(uniqExact(symbol)), ' symbols: ', any(reason))) AS found,
  toJSONString(groupArray(20)(map('symbol', toString(symbol), 'frame', toString(frame), 'reason', reason,
    'open', toString(open), 'high', toString(high), 'low', toString(low), 'close', toString(close),
    'vol', toString(vol), 'amount', toString(amount)))) AS worst
FROM broken
