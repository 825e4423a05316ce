-- A repo trades on to 15:30: its ticks from 15:00:01 on belong to no minute (020_sessions.view.sql), those of everything else from 15:05 on.
ALTER TABLE ticks $on_cluster MODIFY COLUMN frame_i Int16 ALIAS
    multiIf(minute < 570, 0, minute < 690, minute - 569, minute < 780, 120, minute < 900, minute - 659, minute >= 905, 241,
            ((left(symbol, 3) = '204' AND right(symbol, 2) = 'SH') OR (left(symbol, 3) = '131' AND right(symbol, 2) = 'SZ'))
            AND (minute > 900 OR toSecond(time) > 0), 241, 240);
