-- Bars of a day that another source and we both have: how many differ in volume (share of the larger one) or in a price (yuan).
-- measure: share that differs in what is asked for
WITH
  {what:String} = 'volume' AS by_volume,
  b AS (
    SELECT o.symbol AS symbol, o.frame AS frame, (o.open, o.high, o.low, o.close, o.vol) AS ours, (t.open, t.high, t.low, t.close, t.vol) AS theirs,
           if(by_volume, abs(o.vol - t.vol) / greatest(o.vol, t.vol, 1),
              greatest(abs(o.open - t.open), abs(o.high - t.high), abs(o.low - t.low), abs(o.close - t.close))) AS difference
    FROM (SELECT * FROM {ours:Identifier} FINAL WHERE toDate(frame) = {day:Date}) AS o
    INNER JOIN (SELECT * FROM {table:Identifier} FINAL WHERE period = {period:String} AND toDate(frame) = {day:Date}) AS t
      ON o.symbol = t.symbol AND o.frame = t.frame
  )
SELECT
  countIf(difference > {tolerance:Float64} + 1e-9) / greatest(count(), 1) AS measure,
  concat('within ', toString({tolerance:Float64})) AS expected,
  concat(toString(countIf(difference > {tolerance:Float64} + 1e-9)), ' of ', toString(count()), ' bars differ') AS found,
  toJSONString(arrayMap(x -> map('symbol', toString(x.2), 'frame', toString(x.3), 'ours', toString(x.4), 'theirs', toString(x.5)),
    arraySlice(arrayReverseSort(x -> x.1, groupArrayIf((difference, symbol, frame, ours, theirs), difference > {tolerance:Float64} + 1e-9)), 1, 20))) AS worst
FROM b
