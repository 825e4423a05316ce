-- Bars with trades of a day that only one side has: another source's and ours.
-- measure: share of all such bars
WITH
  t AS (SELECT symbol, frame FROM {table:Identifier} FINAL WHERE period = {period:String} AND toDate(frame) = {day:Date} AND vol > 0),
  o AS (SELECT symbol, frame FROM {ours:Identifier} FINAL WHERE toDate(frame) = {day:Date} AND vol > 0 AND symbol IN (SELECT symbol FROM t)),
  b AS (SELECT symbol, frame, max(theirs) AS theirs, max(ours) AS ours
        FROM (SELECT symbol, frame, 1 AS theirs, 0 AS ours FROM t UNION ALL SELECT symbol, frame, 0, 1 FROM o) GROUP BY symbol, frame)
SELECT
  countIf(NOT theirs OR NOT ours) / greatest(count(), 1) AS measure,
  concat(toString(countIf(ours)), ' bars of ours') AS expected,
  concat(toString(countIf(theirs)), ' of the source, ', toString(countIf(NOT theirs)), ' missing, ', toString(countIf(NOT ours)), ' that we lack') AS found,
  toJSONString(groupArrayIf(20)(map('symbol', toString(symbol), 'frame', toString(frame), 'missing', if(theirs, 'ours', 'theirs')), NOT theirs OR NOT ours)) AS worst
FROM b
