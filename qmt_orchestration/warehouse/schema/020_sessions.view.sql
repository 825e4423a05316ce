-- How the symbols of each market and first three digits of the code trade: `market.instruments.trading_of` in SQL, tested equal.
-- closing_call: since when 14:57 to 15:00 is a call auction (2149: never). late: since when what trades from 15:05 on, of a repo from
-- 15:00:01 on, belongs to no minute and is in the after_hours columns of bars_1d. ends: of trading, in minutes of the day.
CREATE OR REPLACE VIEW trading_codes $on_cluster AS
WITH
    market = 'SH' AND (intDiv(n, 10) = 60 OR n IN (688, 689, 900)) AS sh_stock,
    market = 'SH' AND (intDiv(n, 10) IN (51, 52, 53, 55, 56, 58) OR n IN (500, 501, 502, 506, 508)) AS sh_fund,
    (market = 'SH' AND n = 204) OR (market = 'SZ' AND n = 131) AS repo,
    (market = 'SH' AND n = 0) OR (market = 'SZ' AND intDiv(n, 10) IN (39, 98)) OR (market = 'BJ' AND n = 899) AS is_index
SELECT market, leftPad(toString(n), 3, '0') AS code,
       toDate(multiIf(repo OR is_index, '2149-01-01', market != 'SH', '1990-01-01', sh_stock, '2018-08-20', sh_fund, '2026-07-06', '2149-01-01')) AS closing_call,
       toDate(multiIf(repo, '1990-01-01', market = 'SH' AND n IN (688, 689), '2019-07-22', market = 'SZ' AND n IN (300, 301, 302), '2020-08-24',
                      (market = 'SH' AND n IN (600, 601, 603, 605)) OR (market = 'SZ' AND n IN (0, 1, 2, 3)), '2026-07-06', '2149-01-01')) AS late,
       toUInt16(if(repo, 930, 900)) AS ends
FROM (SELECT arrayJoin(['SH', 'SZ', 'BJ']) AS market, toUInt16(number) AS n FROM numbers(1000));
