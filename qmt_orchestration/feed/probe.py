"""What a terminal says of two or three codes of each kind, as one JSON document: `qmt probe-terminal`.

Read-only: nothing is subscribed or downloaded. It answers what docs/instruments.md marks open. It runs in a process of
its own (``python -m qmt_orchestration.feed.probe FILE``), which the command ends when the terminal does not answer; the
file is written after each code, so that what was found until then stays.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from qmt_orchestration.feed import xt
from qmt_orchestration.market.instruments import Kind, instrument_of, trading_of
from qmt_orchestration.market.sessions import SHANGHAI, from_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.fields import finite

#: Codes of each kind; of those that expire, members of a sector are taken besides.
CODES: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.STOCK: ("600000.SH", "688981.SH", "000001.SZ", "300750.SZ", "920002.BJ"),
    Kind.FUND: ("510050.SH", "159915.SZ", "501018.SH"),
    Kind.INDEX: ("000300.SH", "399001.SZ", "899050.BJ"),
    Kind.CONVERTIBLE: ("113050.SH", "123219.SZ"),
    Kind.BOND: ("019547.SH", "010107.SH", "101303.SZ"),
    Kind.REPO: ("204001.SH", "131810.SZ"),
}
_SECTORS: Final = {Kind.CONVERTIBLE: "沪深转债"}
_ROWS: Final = 3


def documents(settings: Settings) -> Iterator[dict[str, Any]]:
    """The document as it grows, after each code. Raises ImportError and what `xt.load` raises."""
    terminal = xt.load(settings)
    xtdata = terminal.xtdata
    now = from_ms(terminal.now_ms()) if terminal.now_ms else datetime.now(SHANGHAI)
    about: dict[str, Any] = {"xtquant": version("xtquant"), "feed": settings.feed, "at": now.isoformat()}
    about["sectors"] = _ask(lambda: list(xtdata.get_sector_list()))
    found: dict[str, Any] = {**about, "codes": {}}
    for kind, code in _codes(xtdata):
        found["codes"][code] = {"kind": kind.value, **_of_code(xtdata, code, now)}
        yield found


def _codes(xtdata: Any) -> Iterator[tuple[Kind, str]]:
    for kind, codes in CODES.items():
        more: list[str] = []
        if sector := _SECTORS.get(kind):
            members = _ask(lambda name=sector: sorted(xtdata.get_stock_list_in_sector(name)))  # type: ignore[misc]
            listed = members if isinstance(members, list) else []
            more = [next((m for m in listed if m.endswith(market)), "") for market in (".SH", ".SZ")]
        yield from ((kind, code) for code in dict.fromkeys((*codes, *filter(None, more))))


def _of_code(xtdata: Any, code: str, now: datetime) -> dict[str, Any]:
    """Every answer of the terminal about a code; a call that fails leaves its error."""
    about, trading = instrument_of(code), trading_of(code, now.date())
    ours = {"lot_size": about.lot_size, "price_tick": about.price_tick, "closing_call": trading.closing_call}
    asked: dict[str, Callable[[], Any]] = {
        "instrument_type": lambda: xtdata.get_instrument_type(code),
        "full_tick": lambda: xtdata.get_full_tick([code]).get(code),
        "detail": lambda: xtdata.get_instrument_detail(code, True),
        "trading_period": lambda: xtdata.get_trading_period(code),
        "kline_1m": lambda: _bars(xtdata.get_market_data_ex([], [code], "1m", count=_ROWS), code),
        "kline_1d": lambda: _bars(xtdata.get_market_data_ex([], [code], "1d", count=_ROWS), code),
        "full_kline_1m": lambda: _fields(xtdata.get_full_kline([], [code], "1m", count=_ROWS), code),
        "full_kline_1d": lambda: _fields(xtdata.get_full_kline([], [code], "1d", count=1), code),
    }
    return {"ours": ours, **{name: _ask(question) for name, question in asked.items()}}


def _ask(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except Exception as error:  # xtquant raises bare Exception; the error is what was to be found out
        return {"error": f"{type(error).__name__}: {error}"}


def _bars(frames: dict[str, Any], code: str) -> Any:
    return frames[code].reset_index().to_dict("records")


def _fields(fields: dict[str, Any], code: str) -> Any:
    return {name: frame.loc[code].to_dict() for name, frame in fields.items()}


def main() -> int:
    """Write the document to the file named on the command line."""
    target = Path(sys.argv[1])
    for document in documents(Settings()):
        draft = target.with_suffix(".part")
        draft.write_text(json.dumps(finite(document), ensure_ascii=False, indent=1, default=str), encoding="utf-8")
        draft.replace(target)
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except Exception as problem:  # one line, as the command shows it
        sys.stderr.write(f"{type(problem).__name__}: {problem}\n")
        code = 1
    sys.stderr.flush()
    os._exit(code)  # xtquant's threads must not hold the process
