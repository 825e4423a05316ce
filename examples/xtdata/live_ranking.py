"""The ten stocks that have risen most, printed with every push.

python live_ranking.py [end after so many pushes; default: never]
"""

import sys
import threading

from xtquant import xtdata

limit = int(sys.argv[1]) if len(sys.argv) > 1 else 0
stocks = set(xtdata.get_stock_list_in_sector("沪深A股"))
ticks: dict = {}
pushes = 0
finished = threading.Event()


def on_data(datas):
    global pushes
    if finished.is_set():
        return
    ticks.update({code: tick for code, tick in datas.items() if code in stocks and tick["lastPrice"] > 0})
    change = {code: tick["lastPrice"] / tick["lastClose"] - 1 for code, tick in ticks.items()}
    for code in sorted(change, key=lambda c: (-change[c], c))[:10]:
        print(f"{code} {ticks[code]['lastPrice']:8.2f} {change[code]:+.2%} {ticks[code]['amount'] / 1e8:.2f} 亿")
    print()
    pushes += 1
    if pushes == limit:
        finished.set()


number = xtdata.subscribe_whole_quote(["SH", "SZ"], callback=on_data)
if limit:
    finished.wait(60)
    xtdata.unsubscribe_quote(number)
else:
    xtdata.run()
