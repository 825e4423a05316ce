-- Symbols do not fall silent together. In each minute of continuous trading: of the symbols that ticked in each of the five minutes
-- before it (the lunch break does not count), how many have no tick at all now, or, where they had 12 and more, less than a sixth: a feed
-- that is dead and subscribed to again brings one snapshot of everything each time. Halts take a few at a time, so up to five at once are
-- no finding; more is a part of the feed that has gone. 14:58 to 15:00 of what has a closing call, minutes not from ticks, and the minute
-- in which a recording of a part of the day ends are left out.
-- measure: the largest share of active symbols that fell silent in one minute
WITH
  b AS (
    SELECT symbol, frame, ticks, source,
           min(if(source = 'history', 0, ticks)) OVER before AS least_before, count() OVER before AS frames_before,
           avg(ticks) OVER before AS average_before, ticks = 0 OR (average_before >= 12 AND ticks * 6 < average_before) AS is_silent
    FROM bars_1m
    WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date}) AND frame <= {last:DateTime('Asia/Shanghai')}
      AND toHour(frame) * 60 + toMinute(frame) BETWEEN 571 AND if((right(symbol, 2), left(symbol, 3)) IN (SELECT market, code FROM trading_codes WHERE closing_call <= {day:Date}), 897, 900)
    WINDOW before AS (PARTITION BY symbol ORDER BY frame ROWS BETWEEN 5 PRECEDING AND 1 PRECEDING)
  ),
  (SELECT max(frame) FROM bars_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})) AS newest,
  minutes AS (
    SELECT frame, count() AS active, countIf(is_silent) AS silent, groupArrayIf(3)(toString(symbol), is_silent) AS examples
    FROM b WHERE frames_before = 5 AND least_before > 0 AND (frame < newest OR newest >= {last:DateTime('Asia/Shanghai')}) GROUP BY frame
  ),
  gone AS (SELECT *, silent / active AS share FROM minutes WHERE silent > 5)
SELECT
  if(count() = 0, 0., max(share)) AS measure,
  'active symbols go on ticking' AS expected,
  if(count() = 0, 'no minute in which many fell silent',
     concat(toString(max(silent)), ' of ', toString(argMax(active, silent)), ' symbols fell silent in ', formatDateTime(argMax(frame, silent), '%H:%i', 'Asia/Shanghai'),
            ', ', toString(count()), ' minutes like that')) AS found,
  toJSONString(arrayMap(x -> map('minute', formatDateTime(x.2, '%H:%i', 'Asia/Shanghai'), 'silent', toString(x.1), 'active', toString(x.3), 'among_them', arrayStringConcat(x.4, ', ')),
    arraySlice(arrayReverseSort(x -> x.1, groupArray((silent, frame, active, examples))), 1, 20))) AS worst
FROM gone
