-- How many symbols of a day's list have sent a tick in the newest minute up to `frame` and in the one before, and those that
-- are in neither (by symbol). Expected: listed and not suspended on the day's instrument list; without one, what ticked that day.
WITH
    (SELECT max(day) FROM instruments WHERE day <= {day:Date}) AS list_day,
    listed AS (SELECT symbol, name FROM instruments WHERE day = list_day AND listed AND NOT suspended),
    states AS (SELECT symbol, frame FROM bar_states_1m
               WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) AND frame <= toDateTime({frame:Int64}, 'Asia/Shanghai')),
    (SELECT arraySort(x -> -x, groupUniqArray(toUnixTimestamp(frame))) FROM states) AS frames,
    today AS (SELECT symbol, max(toUnixTimestamp(frame)) AS newest, max(toUnixTimestamp(frame) = frames[2]) AS was_there
              FROM states GROUP BY symbol),
    expected AS (SELECT symbol, name FROM listed
                 UNION ALL SELECT symbol, '' FROM today WHERE (SELECT count() FROM listed) = 0)
SELECT count() AS expected,
       countIf(t.newest = frames[1]) AS flowing,
       countIf(t.was_there = 1) AS flowed,
       countIf(t.newest = 0) AS never,
       frames[1] AS newest_frame,
       arraySlice(groupArrayIf((e.symbol, e.name, t.newest), t.newest != frames[1] AND t.was_there = 0), 1, 24) AS missing
FROM (SELECT * FROM expected ORDER BY symbol) AS e LEFT JOIN today AS t ON e.symbol = t.symbol
