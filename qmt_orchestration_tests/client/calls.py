"""Calls of xtdata's functions whose answers are compared: the real Python layer over the simulator, and our module.

``python -m qmt_orchestration_tests.client.calls FILE`` makes them with the real one and pickles the answers.
"""

from __future__ import annotations

import io
import pickle
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

SYMBOLS: Final = ["000001.SZ", "000082.SZ", "600000.SH", "688981.SH"]
HALTED: Final = "605663.SH"  # suspended on the second day of the simulated market
DAYS: Final = ("20250604", "20250605")
FIRST: Final = "20250519"  # of the daily bars
ALL: Final = [*SYMBOLS, HALTED]
UNKNOWN: Final = "600999.BJ"
INTRADAY: Final = ("1m", "5m", "15m", "30m", "60m", "1h")


def download(xtdata: Any) -> list[dict[str, Any]]:
    """Make everything available that the calls read; the progress reported."""
    progress: list[dict[str, Any]] = []
    for period in INTRADAY:
        xtdata.download_history_data2(ALL, period, DAYS[0], DAYS[1], progress.append)
    xtdata.download_history_data2(ALL, "1d", FIRST, DAYS[1], progress.append)
    xtdata.download_history_data2(ALL, "tick", DAYS[1], DAYS[1], progress.append)
    return progress


def answers(xtdata: Any) -> dict[str, Any]:
    """Every answer by a name that says what was asked."""
    ex, plain = xtdata.get_market_data_ex, xtdata.get_market_data
    prices, first, last = ["open", "high", "low", "close", "preClose"], DAYS[0], DAYS[1]
    out: dict[str, Any] = {}
    for period in (*INTRADAY, "1d"):
        out[f"ex {period}"] = ex([], ALL, period, first, last, fill_data=False)
        out[f"ex {period} filled"] = ex([], ALL, period, first, last)
        for count in (-1, 0, 1, 7):
            out[f"ex {period} count {count}"] = ex(["time", "close"], SYMBOLS, period, first, last, count)
    for how in ("none", "front", "back", "front_ratio", "back_ratio"):
        out[f"ex 1d {how}"] = ex(prices, SYMBOLS, "1d", FIRST, last, dividend_type=how)
        out[f"ex 1m {how}"] = ex(prices, SYMBOLS, "1m", first, last, 5, how)
        out[f"ex 1d {how} part"] = ex(prices, SYMBOLS, "1d", FIRST, "20250527", dividend_type=how)
    out["ex order of fields"] = ex(["volume", "close", "time"], SYMBOLS[:1], "1d", first, last)
    out["ex seconds"] = ex(["close", "volume"], SYMBOLS, "1m", "20250605093000", "20250605093500")
    out["ex afternoon"] = ex(["close"], SYMBOLS, "5m", "20250605130000", "20250605133000")
    out["ex no end"] = ex(["close"], SYMBOLS, "1m", "20250605145000", "")
    out["ex unknown code"] = ex(["time", "close"], [UNKNOWN], "1d", first, last)
    out["ex last without a start"] = ex(["close"], SYMBOLS, "1d", "", last, 10)
    out["ex last minutes without a start"] = ex(["close"], SYMBOLS, "1m", "", "", 300)
    out["ex no session"] = ex(["close"], SYMBOLS, "1m", "20250601", "20250601")
    out["local 1d"] = xtdata.get_local_data(["close"], SYMBOLS, "1d", FIRST, last)
    out["plain 1d"] = plain(["time", "close", "volume"], SYMBOLS, "1d", FIRST, last)
    out["plain 1m count"] = plain(["close"], SYMBOLS, "1m", first, last, 10)
    for fill in (True, False):
        out[f"plain 1m gaps filled {fill}"] = plain(
            ["open", "close", "volume"], ALL, "1m", "20250605093000", "20250605094000", fill_data=fill
        )
    out["full kline"] = xtdata.get_full_kline(["time", "open", "close"], SYMBOLS, "1m", count=5)
    names = [
        "time",
        "lastPrice",
        "open",
        "high",
        "low",
        "lastClose",
        "amount",
        "volume",
        "pvolume",
        "askPrice",
        "bidVol",
    ]
    out["ticks ex"] = ex(names, SYMBOLS, "tick", "20250605100000", "20250605100100")
    out["ticks ex count"] = ex(["lastPrice"], SYMBOLS, "tick", "20250605", "20250605", 3)
    out["ticks"] = plain(names, SYMBOLS, "tick", "20250605100000", "20250605100100")
    out["full tick"] = xtdata.get_full_tick(SYMBOLS)
    out["full tick unknown"] = xtdata.get_full_tick([UNKNOWN])
    out["detail"] = {code: xtdata.get_instrument_detail(code) for code in (*ALL, UNKNOWN)}
    out["type"] = {code: xtdata.get_instrument_type(code) for code in (*SYMBOLS, "510050.SH")}
    out["sectors"] = xtdata.get_sector_list()
    out["members"] = {
        name: xtdata.get_stock_list_in_sector(name) for name in ("沪深京A股", "上证A股", "创业板", "科创板")
    }
    out["dates"] = [
        xtdata.get_trading_dates("SH", "20250501", "20250605"),
        xtdata.get_trading_dates("SZ", "20250501", "20250610", 3),
    ]
    out["calendar"] = xtdata.get_trading_calendar("SH", "20250501", "20251231")
    out["holidays"] = [day for day in xtdata.get_holidays() if day < "2026"]
    out["factors"] = {code: xtdata.get_divid_factors(code, "20240606", "20250605") for code in SYMBOLS}
    out["no factors"] = len(xtdata.get_divid_factors(SYMBOLS[0], "20250604", "20250604"))
    out["text of a time"] = xtdata.timetag_to_datetime(1749087000000, "%Y%m%d %H:%M:%S")
    out["time of a text"] = [xtdata.datetime_to_timetag("20250605"), xtdata.datetime_to_timetag("20250605093000")]
    return out


def main(path: str) -> None:
    """The answers of the real xtdata over the simulator of the environment's settings."""
    from qmt_orchestration.feed import xt
    from qmt_orchestration.settings import Settings

    xtdata = xt.load(Settings()).xtdata
    with redirect_stdout(io.StringIO()):
        progress = download(xtdata)
        found = answers(xtdata)
    Path(path).write_bytes(pickle.dumps({"progress": progress, **found}))


if __name__ == "__main__":
    main(sys.argv[1])
