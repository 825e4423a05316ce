-- The newest tick of the market on a day, epoch ms (0 = no tick).
SELECT toInt64(toUnixTimestamp64Milli(max(last_time))) FROM bar_states_1m WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
