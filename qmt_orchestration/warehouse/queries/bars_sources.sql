-- What the minute bars of a day stand on: rows that come from our ticks (filled minutes among them), rows from QMT's history.
SELECT countIf(source != 'history'), countIf(source = 'history') FROM bars_1m FINAL WHERE toYYYYMMDD(frame) = toYYYYMMDD({day:Date})
