"""What a symbol is: kind, exchange, board, lot size, decimals, trading sessions. One table, by code and market.

The codes are the vendor's own type table; a code alone says nothing (000001.SH is an index, 000001.SZ a share). Which
facts are certain and which are inferred: docs/instruments.md. Amounts and prices of a day may prove another lot size
than the one here (`feed.checks`); what a terminal says of an instrument wins over decimals and price tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import Enum
from functools import lru_cache
from typing import Final

from qmt_orchestration.market.symbols import board_of


class Kind(str, Enum):
    """Kind of instrument; decides units, decimals, sessions and limits."""

    STOCK = "stock"
    FUND = "fund"  # ETF, LOF, closed-end fund, REIT
    INDEX = "index"
    CONVERTIBLE = "convertible"  # and exchangeable bonds: traded like them
    BOND = "bond"
    REPO = "repo"
    OTHER = "other"  # codes that no table knows


#: (market, prefixes, kind, board); the longest prefix that fits wins. Boards of A-shares: `market.symbols.Board`.
_CODES: Final[tuple[tuple[str, tuple[str, ...], Kind, str], ...]] = (
    ("SH", ("60", "688", "689"), Kind.STOCK, ""),
    ("SH", ("900",), Kind.STOCK, "b_share"),
    ("SH", ("000",), Kind.INDEX, "index"),
    ("SH", ("51", "52", "53", "55", "56", "58"), Kind.FUND, "etf"),
    ("SH", ("501", "502", "506"), Kind.FUND, "lof"),
    ("SH", ("500",), Kind.FUND, "closed_end"),
    ("SH", ("508",), Kind.FUND, "reit"),
    ("SH", ("110", "111", "113", "118"), Kind.CONVERTIBLE, "convertible"),
    ("SH", ("132", "137"), Kind.CONVERTIBLE, "exchangeable"),
    ("SH", ("009", "010", "019", "020"), Kind.BOND, "treasury"),
    ("SH", ("1", "2", "1108", "1109", "1185", "1186"), Kind.BOND, "bond"),
    ("SH", ("204",), Kind.REPO, "repo"),
    ("SZ", ("000", "001", "002", "003", "004", "30"), Kind.STOCK, ""),
    ("SZ", ("200", "201"), Kind.STOCK, "b_share"),
    ("SZ", ("39", "98"), Kind.INDEX, "index"),
    ("SZ", ("158", "159"), Kind.FUND, "etf"),
    ("SZ", ("16",), Kind.FUND, "lof"),
    ("SZ", ("180",), Kind.FUND, "reit"),
    ("SZ", ("184",), Kind.FUND, "closed_end"),
    ("SZ", ("121", "122", "123", "125", "126", "127", "128", "129"), Kind.CONVERTIBLE, "convertible"),
    ("SZ", ("117", "120"), Kind.CONVERTIBLE, "exchangeable"),
    ("SZ", ("100", "101", "102", "103", "107", "108", "190", "191", "198"), Kind.BOND, "treasury"),
    ("SZ", ("11", "13", "14", "124"), Kind.BOND, "bond"),
    ("SZ", ("131",), Kind.REPO, "repo"),
    ("SZ", ("131990",), Kind.OTHER, ""),
    ("BJ", ("43", "83", "87", "88", "92"), Kind.STOCK, ""),
    ("BJ", ("899",), Kind.INDEX, "index"),
)

#: Units per 手 where nothing proves another: shares, fund units, bonds, 100 yuan of a repo. An index has none.
LOT_SIZES: Final[dict[Kind, int]] = {
    Kind.STOCK: 100,
    Kind.FUND: 100,
    Kind.INDEX: 1,
    Kind.CONVERTIBLE: 10,
    Kind.BOND: 10,
    Kind.REPO: 10,
    Kind.OTHER: 100,
}
LOT_CANDIDATES: Final = (1, 10, 100)
#: A repo's price is a rate; what is paid for one unit is 100 yuan.
REPO_PAR: Final = 100.0

SH_STOCK_CLOSING_CALL: Final = date(2018, 8, 20)
SH_FUND_CLOSING_CALL: Final = date(2026, 7, 6)
AFTER_HOURS_FOR_ALL: Final = date(2026, 7, 6)  # all A-shares of SSE and SZSE; before it STAR and ChiNext
AFTER_HOURS_STAR: Final = date(2019, 7, 22)
AFTER_HOURS_CHINEXT: Final = date(2020, 8, 24)


@dataclass(frozen=True)
class Instrument:
    """A symbol by its code. *lot_size*: units per 手; *price_tick* in the quoted currency (a repo: per cent a year)."""

    symbol: str
    kind: Kind
    exchange: str
    board: str
    lot_size: int
    price_tick: float
    decimals: int

    @property
    def priced(self) -> bool:
        """Whether amount ÷ volume must be a price: not for an index, nor for codes that no table knows."""
        return self.kind not in (Kind.INDEX, Kind.OTHER)

    @property
    def par(self) -> float:
        """Yuan paid for one unit where that is not the quoted price (repo), else 0."""
        return REPO_PAR if self.kind is Kind.REPO else 0.0

    @property
    def group(self) -> str:
        """Market and kind, as in the feed's news: ``SH.stock``."""
        return f"{self.exchange}.{self.kind.value}"


@dataclass(frozen=True)
class Trading:
    """How a symbol trades on a day; times in minutes since midnight.

    *closing_call*: 14:57-15:00 is a call auction, else continuous to *continuous_end*. *after_hours*: fixed-price
    trading 15:05-15:30. What trades from 15:00:01 on belongs to no minute of the 241.
    """

    closing_call: bool
    continuous_end: int
    after_hours: bool


@lru_cache(maxsize=65_536)
def instrument_of(symbol: str) -> Instrument:
    """What *symbol* is, by code and market."""
    code, _, exchange = symbol.partition(".")
    kind, board, longest = Kind.OTHER, "", 0
    for market, prefixes, found, name in _CODES:
        fits = max((len(p) for p in prefixes if market == exchange and code.startswith(p)), default=0)
        if fits > longest:
            kind, board, longest = found, name, fits
    if kind is Kind.STOCK and not board:
        share = board_of(symbol)
        board = share.value if share else ""
    tick, decimals = _price_tick(kind, exchange, board)
    return Instrument(symbol, kind, exchange, board, LOT_SIZES[kind], tick, decimals)


def _price_tick(kind: Kind, exchange: str, board: str) -> tuple[float, int]:
    if kind in (Kind.FUND, Kind.CONVERTIBLE, Kind.BOND) or (exchange == "SH" and board == "b_share"):
        return 0.001, 3
    if kind is Kind.REPO:
        return (0.005, 3) if exchange == "SH" else (0.001, 3)
    return (0.01, 4) if kind is Kind.INDEX else (0.01, 2)


def trading_of(symbol: str, day: date) -> Trading:
    """Closing call, end of continuous trading and after-hours trading of *symbol* on *day*."""
    about = instrument_of(symbol)
    if about.kind is Kind.REPO:
        return Trading(closing_call=False, continuous_end=930, after_hours=False)
    if about.kind is Kind.INDEX:
        return Trading(closing_call=False, continuous_end=900, after_hours=False)
    if about.exchange == "SH":
        since = {Kind.STOCK: SH_STOCK_CLOSING_CALL, Kind.FUND: SH_FUND_CLOSING_CALL}.get(about.kind)
        call = since is not None and day >= since
    else:
        call = True
    after = {"star": AFTER_HOURS_STAR, "chinext": AFTER_HOURS_CHINEXT}.get(about.board)
    if about.board in ("sh_main", "sz_main"):
        after = AFTER_HOURS_FOR_ALL
    return Trading(call, 897 if call else 900, after is not None and day >= after)
