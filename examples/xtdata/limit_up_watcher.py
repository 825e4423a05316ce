"""Stocks within some per cent of their upper price limit, as they come there.

python limit_up_watcher.py [per cent, default 0.1] [end after so many pushes; default: never]
"""

import sys
import threading

from xtquant import xtdata

near = float(sys.argv[1]) / 100 if len(sys.argv) > 1 else 0.001
limit = int(sys.argv[2]) if len(sys.argv) > 2 else 0
stocks = xtdata.get_stock_list_in_sector("沪深A股")
details = {code: xtdata.get_instrument_detail(code) for code in stocks}
seen: set = set()
pushes = 0
finished = threading.Event()


def on_data(datas):
    global pushes
    if finished.is_set():
        return
    for code in sorted(datas):
        detail, price = details.get(code), datas[code]["lastPrice"]
        if detail and code not in seen and price > 0 and price >= detail["UpStopPrice"] * (1 - near):
            seen.add(code)
            print(f"{code} {detail['InstrumentName']} {price:.2f} of at most {detail['UpStopPrice']:.2f}")
    pushes += 1
    if pushes == limit:
        finished.set()


number = xtdata.subscribe_whole_quote(stocks, callback=on_data)
if limit:
    finished.wait(60)
    xtdata.unsubscribe_quote(number)
else:
    xtdata.run()
