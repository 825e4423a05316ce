"""How many stocks of each board rise and fall now."""

from statistics import median

from xtquant import xtdata

for sector in ("上证A股", "深证A股", "创业板", "科创板", "京市A股"):
    stocks = xtdata.get_stock_list_in_sector(sector)
    ticks = xtdata.get_full_tick(stocks)
    change = [t["lastPrice"] / t["lastClose"] - 1 for t in ticks.values() if t["lastPrice"] > 0 and t["lastClose"] > 0]
    if change:
        up, down = sum(c > 0 for c in change), sum(c < 0 for c in change)
        print(f"{sector} {len(change)} stocks: {up} up, {down} down, median {median(change):+.2%}")
