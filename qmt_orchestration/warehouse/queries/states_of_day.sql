-- Minute states of a day.
SELECT count() FROM bar_states_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
