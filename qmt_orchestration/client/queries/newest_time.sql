-- When the newest tick of the market is stamped, and the begin of its day (epoch ms), from the parts' metadata.
SELECT toUnixTimestamp64Milli(max(time)), toUnixTimestamp(toStartOfDay(max(time))) * 1000 FROM ticks SETTINGS final = 0
