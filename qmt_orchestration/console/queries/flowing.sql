-- By exchange and kind: how many symbols of a day's list have sent a tick in the newest minute up to `frame` and in the one before, and those that
-- are in neither (by symbol). Expected: listed and not suspended on the day's instrument list; without one, what ticked that day.
-- `newest` of a symbol that is in neither of the last buckets is the begin of its newest bucket.
WITH
    toDateTime({frame:Int64}, 'Asia/Shanghai') AS until,
    (SELECT max(day) FROM instruments WHERE day <= {day:Date}) AS list_day,
    listed AS (SELECT symbol, name, kind FROM instruments WHERE day = list_day AND listed AND NOT suspended),
    minutes AS (SELECT i, frame FROM trading_minutes(day = {day:Date}) WHERE frame <= until),
    (SELECT max(bucket) FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND time < until + 60 SETTINGS final = 0) AS newest_bucket,
    recent AS (
        SELECT symbol, toUnixTimestamp(m.frame) AS at FROM ticks INNER JOIN minutes AS m ON ticks.frame_i = m.i
        WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND bucket >= newest_bucket - toIntervalMinute(15) GROUP BY symbol, at
    ),
    (SELECT arrayReverseSort(groupUniqArray(at)) FROM recent) AS frames,
    today AS (
        SELECT symbol, max(r.at) AS newest, max(r.at = frames[2]) AS was_there FROM (
            SELECT symbol, at FROM recent
            UNION ALL SELECT symbol, toUnixTimestamp(max(bucket)) FROM ticks
            WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND bucket < newest_bucket GROUP BY symbol
        ) AS r GROUP BY symbol
    ),
    expected AS (SELECT symbol, name, kind FROM listed
                 UNION ALL SELECT symbol, '', '' FROM today WHERE (SELECT count() FROM listed) = 0)
SELECT splitByChar('.', toString(e.symbol))[2] AS exchange, toString(e.kind) AS kind, count() AS expected,
       countIf(t.newest = frames[1]) AS flowing,
       countIf(t.was_there = 1) AS flowed,
       countIf(t.newest = 0) AS never,
       frames[1] AS newest_frame,
       arraySlice(groupArrayIf((e.symbol, e.name, t.newest), t.newest != frames[1] AND t.was_there = 0), 1, 24) AS missing
FROM (SELECT * FROM expected ORDER BY symbol) AS e LEFT JOIN today AS t ON e.symbol = t.symbol
GROUP BY exchange, kind ORDER BY expected DESC, exchange, kind
SETTINGS final = 0
