-- By exchange and kind: how many symbols of a day's list have sent a tick in the newest minute up to `frame` and in the one before, and those that
-- are in neither (by symbol). Expected: listed and not suspended on the day's instrument list; without one, what ticked that day.
-- Two minutes of ticks are read; what a symbol sent before is its newest bar with ticks, and the day's ticks only of symbols without a bar
-- (`newest`: begin of their newest bucket), so that the cost does not grow with the day.
WITH
    toDateTime({frame:Int64}, 'Asia/Shanghai') AS until,
    (SELECT max(day) FROM instruments WHERE day <= {day:Date}) AS list_day,
    listed AS (SELECT symbol, name, kind FROM instruments WHERE day = list_day AND listed AND NOT suspended),
    (SELECT max(time) FROM ticks WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) SETTINGS final = 0) AS newest_tick,
    (SELECT arraySlice(arrayReverseSort(groupArray((i, frame, begins, ends))), 1, 2) FROM trading_minutes(day = {day:Date})
     WHERE begins <= newest_tick AND begins < until) AS last_two,
    recent AS (
        SELECT symbol, max(time >= last_two[1].3) AS is_flowing, max(time < last_two[1].3) AS was_flowing FROM ticks
        WHERE bucket >= last_two[-1].3 - toIntervalMinute(15) AND time >= last_two[-1].3 AND time < last_two[1].4 GROUP BY symbol
    ),
    barred AS (SELECT symbol, max(frame) AS newest FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) AND frame <= until AND ticks > 0 GROUP BY symbol),
    silent AS (SELECT symbol FROM listed WHERE symbol NOT IN (SELECT symbol FROM recent) AND symbol NOT IN (SELECT symbol FROM barred)),
    symbols AS (
        SELECT symbol, any(n) AS name, any(k) AS kind, max(f) AS is_flowing, max(w) AS was_flowing, max(t) AS newest, max(l) AS is_listed FROM (
            SELECT symbol, name AS n, toString(kind) AS k, 0 AS f, 0 AS w, 0::UInt32 AS t, 1 AS l FROM listed
            UNION ALL SELECT symbol, '', '', is_flowing, was_flowing, toUInt32(last_two[1].2), 0 FROM recent
            UNION ALL SELECT symbol, '', '', 0, 0, toUInt32(newest), 0 FROM barred
            UNION ALL SELECT symbol, '', '', 0, 0, toUInt32(max(bucket)), 0 FROM ticks
            WHERE toYYYYMMDD(time) = toYYYYMMDD({day:Date}) AND time < until AND symbol IN (SELECT symbol FROM silent) GROUP BY symbol
        ) GROUP BY symbol
    )
SELECT splitByChar('.', toString(symbol))[2] AS exchange, kind, count() AS expected, countIf(is_flowing) AS flowing, countIf(was_flowing) AS flowed,
       countIf(newest = 0) AS never, toUInt32(last_two[1].2) AS newest_frame,
       arraySlice(arraySort(groupArrayIf((symbol, name, newest), NOT is_flowing AND NOT was_flowing)), 1, 24) AS missing
FROM symbols WHERE is_listed OR (SELECT count() FROM listed) = 0
GROUP BY exchange, kind ORDER BY expected DESC, exchange, kind
SETTINGS final = 0
