-- Those of some symbols that have a tick on any day.
SELECT DISTINCT toString(symbol) FROM ticks WHERE symbol IN {symbols:Array(String)} SETTINGS final = 0
