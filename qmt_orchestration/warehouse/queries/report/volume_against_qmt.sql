-- Volume of the market by minute: ours and QMT's own, millions of shares.
SELECT formatDateTime(frame, '%H:%i', 'Asia/Shanghai') AS minute, sumIf(vol, ours) / 1e6 AS ours_mn, sumIf(vol, NOT ours) / 1e6 AS qmt_mn
FROM (
  SELECT frame, vol, true AS ours FROM bars_1m
  WHERE frame >= toDateTime({day:Date}, 'Asia/Shanghai') AND frame < toDateTime({day:Date} + 1, 'Asia/Shanghai')
  UNION ALL
  SELECT frame, vol, false FROM qmt_bars_1m
  WHERE frame >= toDateTime({day:Date}, 'Asia/Shanghai') AND frame < toDateTime({day:Date} + 1, 'Asia/Shanghai'))
GROUP BY frame ORDER BY frame
