-- Time of the first and of the newest tick, epoch ms; 0 when there is none.
SELECT toUnixTimestamp64Milli(min(time)) AS first, toUnixTimestamp64Milli(max(time)) AS last FROM ticks SETTINGS final = 0
