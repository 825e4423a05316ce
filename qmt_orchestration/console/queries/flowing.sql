-- How many symbols of a day's list have sent a tick in one minute, and the largest ones that have not (by yesterday's-list order).
-- Expected: listed and not suspended on the day's instrument list; without a list, whatever has ticked that day.
WITH
    (SELECT max(day) FROM instruments WHERE day <= {day:Date}) AS list_day,
    listed AS (SELECT symbol, name FROM instruments WHERE day = list_day AND listed AND NOT suspended),
    today AS (SELECT symbol, max(frame = toDateTime({frame:Int64}, 'Asia/Shanghai')) AS flows, max(frame) AS last_frame
              FROM bar_states_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) GROUP BY symbol),
    expected AS (SELECT symbol, name FROM listed
                 UNION ALL SELECT symbol, '' FROM today WHERE (SELECT count() FROM listed) = 0)
SELECT count() AS expected,
       countIf(t.flows = 1) AS flowing,
       countIf(t.symbol = '') AS never,
       arraySlice(groupArrayIf((e.symbol, e.name, formatDateTime(t.last_frame, '%H:%i')), t.flows != 1), 1, 24) AS missing
FROM (SELECT * FROM expected ORDER BY symbol) AS e LEFT JOIN today AS t ON e.symbol = t.symbol
SETTINGS final = 1
