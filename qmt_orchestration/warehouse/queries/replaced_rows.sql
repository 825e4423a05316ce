-- How many rows of one version took the place of bars that had come from our ticks, and the first of them as JSON.
SELECT count(), toJSONString(groupArray(20)(map('symbol', toString(symbol), 'frame', toString(frame)))) FROM (
    SELECT symbol, frame FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) GROUP BY symbol, frame
    HAVING max(version) = {version:UInt64} AND count() > 1 AND argMaxIf(source, version, version < {version:UInt64}) != 'history'
)
SETTINGS final = 0
