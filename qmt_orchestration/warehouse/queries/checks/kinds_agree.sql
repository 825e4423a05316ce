-- Kinds of instruments (market.instruments, by code) that the terminal's own types or sectors contradict. A wrong kind has wrong units.
-- measure: instruments in doubt
SELECT toFloat64(countIf(kind_doubt != '')) AS measure,
       concat('the terminal agrees on ', toString(count()), ' kinds') AS expected,
       concat(toString(countIf(kind_doubt != '')), ' in doubt') AS found,
       toJSONString(groupArrayIf(20)(map('symbol', toString(symbol), 'kind', toString(kind), 'against', kind_doubt), kind_doubt != '')) AS worst
FROM instruments WHERE day = {day:Date}
