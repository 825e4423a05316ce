-- The 241 minute frames of a trading day: i = 0 (09:30, the opening call), 1 (09:31) … 120 (11:30), 121 (13:01) … 240 (15:00).
-- Ticks of [begins, ends) belong to the frame; minute: of the day, as in 15:00 = 900.
CREATE OR REPLACE VIEW trading_minutes $on_cluster AS
WITH toDateTime({day:Date}, 'Asia/Shanghai') AS midnight
SELECT toInt16(number) AS i, toUInt16(i + if(i <= 120, 570, 660)) AS minute, midnight + minute * 60 AS frame,
       if(i = 0, midnight, frame - 60) AS begins,
       multiIf(i = 120, midnight + 46800, i = 240, frame + 300, frame) AS ends,
       multiIf(i = 0, 'opening call', i <= 120, 'morning', 'afternoon') AS session
FROM numbers(241);

-- Which window of N trading minutes each frame belongs to: `label` is the window's end, end_i its index. The opening call is in
-- the first window; the break does not count.
CREATE OR REPLACE VIEW trading_windows $on_cluster AS
SELECT m.i AS i, m.frame AS frame, w.i AS end_i, w.frame AS label
FROM (SELECT i, frame, toInt16(least(intDiv(greatest(i, 1) + {minutes:UInt16} - 1, {minutes:UInt16}) * {minutes:UInt16}, 240)) AS ends_at
      FROM trading_minutes(day = {day:Date})) AS m
INNER JOIN trading_minutes(day = {day:Date}) AS w ON m.ends_at = w.i;
