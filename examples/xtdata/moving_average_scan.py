"""Stocks whose 5-day average has just risen above their 10-day average.

python moving_average_scan.py [last day, e.g. 20250605]
"""

import sys

from xtquant import xtdata

end = sys.argv[1] if len(sys.argv) > 1 else ""
stocks = xtdata.get_stock_list_in_sector("沪深A股")
xtdata.download_history_data2(stocks, "1d", start_time="", end_time=end)
data = xtdata.get_market_data_ex(["close"], stocks, "1d", end_time=end, count=11, dividend_type="front")
for code in stocks:
    close = data[code]["close"]
    if len(close) < 11:
        continue
    fast, slow = close.rolling(5).mean(), close.rolling(10).mean()
    if fast.iloc[-2] <= slow.iloc[-2] and fast.iloc[-1] > slow.iloc[-1]:
        print(code, data[code].index[-1], f"{close.iloc[-1]:.2f} MA5 {fast.iloc[-1]:.3f} MA10 {slow.iloc[-1]:.3f}")
