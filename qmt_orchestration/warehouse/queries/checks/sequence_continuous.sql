-- The loss of the feed, exact: each session numbers its batches per shard without gaps, so what is missing between the lowest and
-- the highest number of the day was lost. A session's name ends in the
-- moment it began: one that began on this day counts from 0, any other (an earlier day, a replay) from its first number here. Reads
-- what is stored (final=0), so that equal ticks of two batches do not hide one of them.
-- measure: share of batches lost
WITH s AS (
  SELECT session, CRC32(symbol) % {shards:UInt16} AS shard, min(seq) AS lowest, max(seq) AS highest, uniqExact(seq) AS seen,
         groupUniqArray(seq) AS numbers
  FROM ticks
  WHERE time >= toDateTime({day:Date}, 'Asia/Shanghai') AND time < toDateTime({day:Date} + 1, 'Asia/Shanghai')
  GROUP BY session, shard
),
lost AS (
  SELECT session, shard, seen, fromUnixTimestamp64Milli(toInt64OrZero(splitByChar('-', toString(session))[-1]), 'Asia/Shanghai') AS begun,
         if(toDate(begun, 'Asia/Shanghai') = {day:Date}, toUInt64(0), lowest) AS since,
         highest - since + 1 AS wanted, wanted - seen AS gaps,
         arrayFirst(n -> NOT has(numbers, n), range(since, highest + 1)) AS first_missing
  FROM s
)
SELECT
  if(sum(wanted) = 0, 0., sum(gaps) / sum(wanted)) AS measure,
  concat(toString(sum(wanted)), ' batches of ', toString(uniqExact(session)), ' sessions') AS expected,
  concat(toString(sum(seen)), ' batches, ', toString(sum(gaps)), ' lost') AS found,
  toJSONString(groupArrayIf(20)(map('session', toString(session), 'shard', toString(shard), 'lost', toString(gaps),
    'batches', toString(wanted), 'first_missing', toString(first_missing)), gaps > 0)) AS worst
FROM lost
SETTINGS final = 0
