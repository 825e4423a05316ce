"""Whether the terminal agrees with `market.instruments` on what a symbol is: its types, and its sectors of one kind."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from qmt_orchestration.feed.universe import members_of
from qmt_orchestration.market.instruments import Kind, instrument_of

log = logging.getLogger("feed.kinds")

_BONDS: Final = (Kind.CONVERTIBLE, Kind.BOND, Kind.REPO)
#: Names that get_instrument_type gives, and the kinds they fit; other names are not judged.
_TYPES: Final[dict[str, tuple[Kind, ...]]] = {
    "stock": (Kind.STOCK,),
    "fund": (Kind.FUND,),
    "etf": (Kind.FUND,),
    "index": (Kind.INDEX,),
    "bond": _BONDS,
    "repo": (Kind.REPO,),
}
#: Sectors whose members are all of one kind.
_SECTORS: Final[dict[str, Kind]] = {
    "沪深A股": Kind.STOCK,
    "京市A股": Kind.STOCK,
    "沪深ETF": Kind.FUND,
    "沪深基金": Kind.FUND,
    "沪深指数": Kind.INDEX,
    "沪深转债": Kind.CONVERTIBLE,
}


def doubts(xtdata: Any, symbols: Iterable[str]) -> dict[str, str]:
    """What the terminal says against the kind of each symbol, in words; symbols it agrees on are left out."""
    listed = {sector: set(members_of(xtdata, sector)) for sector in _SECTORS}
    found = {}
    for symbol in symbols:
        kind, said = instrument_of(symbol).kind, _types(xtdata, symbol)
        judged = [name for name in said if name in _TYPES]
        against = []
        if judged and not any(kind in _TYPES[name] for name in judged):
            against.append(f"type {' '.join(judged)}")
        against += [f"sector {s}" for s, members in listed.items() if symbol in members and kind is not _SECTORS[s]]
        if against:
            found[symbol] = ", ".join(against)
    return found


def _types(xtdata: Any, symbol: str) -> list[str]:
    try:
        return sorted(str(name) for name, is_one in (xtdata.get_instrument_type(symbol) or {}).items() if is_one)
    except Exception as error:  # xtquant raises bare Exception
        log.warning("type of %s: %s", symbol, error)
        return []
