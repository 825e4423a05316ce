"""Minute bars of some stocks and days: download with progress, read, add up.

python download_loop.py 20250604 20250605 000001.SZ 600000.SH
"""

import sys

from xtquant import xtdata

start, end, stocks = sys.argv[1], sys.argv[2], sys.argv[3:]


def on_progress(data):
    print(f"{data['finished']}/{data['total']} {data['stockcode']}")


for period in ("1m", "5m", "1d"):
    xtdata.download_history_data2(stocks, period, start, end, callback=on_progress)
for day in xtdata.get_trading_dates("SH", start, end):
    text = xtdata.timetag_to_datetime(day, "%Y%m%d")
    minutes = xtdata.get_market_data_ex(["close", "volume"], stocks, "1m", text, text, fill_data=False)
    daily = xtdata.get_market_data(["close", "volume"], stocks, "1d", text, text)
    for code in stocks:
        frame = minutes[code]
        print(
            text,
            code,
            len(frame),
            int(frame["volume"].sum()),
            int(daily["volume"].loc[code, text]),
            frame["close"].iloc[-1],
        )
