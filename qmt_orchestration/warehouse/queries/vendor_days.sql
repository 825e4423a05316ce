-- Days with minute bars of others.
SELECT DISTINCT toDate(frame) AS day FROM qmt_bars WHERE period = '1m' ORDER BY day
