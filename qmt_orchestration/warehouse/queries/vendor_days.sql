-- Days with intraday bars of others.
SELECT DISTINCT toDate(frame) AS day FROM qmt_bars WHERE match(period, '^[0-9]+m$') ORDER BY day
