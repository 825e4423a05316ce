-- Time of the first and of the newest tick, epoch ms; 0 when there is none.
SELECT toUnixTimestamp64Milli(min(time)), toUnixTimestamp64Milli(max(time)) FROM ticks SETTINGS final = 0
