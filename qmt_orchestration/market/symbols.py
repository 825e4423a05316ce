"""Symbols and boards of the A-share market: ``000001.SZ`` = code and market."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

_SYMBOL: Final = re.compile(r"^\d{6}\.(SH|SZ|BJ)$")


class Board(str, Enum):
    """Board of listing; decides price limits and after-hours trading."""

    SH_MAIN = "sh_main"
    STAR = "star"
    SZ_MAIN = "sz_main"
    CHINEXT = "chinext"
    BSE = "bse"


_PREFIXES: Final[tuple[tuple[str, tuple[str, ...], Board], ...]] = (
    ("SH", ("600", "601", "603", "605"), Board.SH_MAIN),
    ("SH", ("688", "689"), Board.STAR),
    ("SZ", ("000", "001", "002", "003"), Board.SZ_MAIN),
    ("SZ", ("300", "301", "302"), Board.CHINEXT),
    ("BJ", ("43", "83", "87", "88", "92"), Board.BSE),
)


def is_symbol(text: str) -> bool:
    """Whether *text* has the form of a symbol of the three exchanges."""
    return bool(_SYMBOL.match(text))


def board_of(symbol: str) -> Board | None:
    """The board of an A-share, None for anything else (funds, bonds, indices, unknown codes)."""
    code, _, market = symbol.partition(".")
    for m, prefixes, board in _PREFIXES:
        if market == m and code.startswith(prefixes):
            return board
    return None


#: Exchange-traded funds, LOFs and REITs; among those of `_MAYBE_TWENTY` are funds of STAR and ChiNext shares.
_FUNDS: Final = {"SH": ("50", "51", "52", "53", "55", "56", "58"), "SZ": ("15", "16", "18")}
_MAYBE_TWENTY: Final = {"SH": ("588", "589"), "SZ": ("159", "16")}


def fund_of(symbol: str) -> bool | None:
    """None when *symbol* is no fund; else whether its price limit may be 20 % (False: it is 10 %)."""
    code, _, market = symbol.partition(".")
    if not code.startswith(_FUNDS.get(market, ())):
        return None
    return code.startswith(_MAYBE_TWENTY[market])
