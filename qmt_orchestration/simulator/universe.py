"""Who is listed in the simulated market: A-shares of the five boards, other kinds where they are asked for
(QMT_SIM_KINDS), and codes that only a subscription by markets brings.

Codes look real (prefixes of boards and kinds, well-known ones first); names and everything else are invented, except a
few famous names. A symbol's traits depend on (seed, symbol) alone, so a smaller market is a part of a larger one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Final
from zlib import crc32

from qmt_orchestration.market.instruments import Kind, instrument_of
from qmt_orchestration.market.symbols import Board, board_of
from qmt_orchestration.simulator.kinds import COUNTS

_SHARES: Final = {Board.SH_MAIN: 1610, Board.STAR: 560, Board.SZ_MAIN: 1410, Board.CHINEXT: 1310, Board.BSE: 260}
_PREFIXES: Final = {
    Board.SH_MAIN: ("SH", ("600", "601", "603", "605")),
    Board.STAR: ("SH", ("688",)),
    Board.SZ_MAIN: ("SZ", ("000", "001", "002", "003")),
    Board.CHINEXT: ("SZ", ("300", "301")),
    Board.BSE: ("BJ", ("430", "832", "836", "839", "870", "873", "920")),
}
_FAMOUS: Final = {
    "000001.SZ": "平安银行",
    "600000.SH": "浦发银行",
    "600519.SH": "贵州茅台",
    "300750.SZ": "宁德时代",
    "688981.SH": "中芯国际",
    "920002.BJ": "万达轴承",
    "000002.SZ": "万科A",
    "601398.SH": "工商银行",
}
#: Funds, indices, bonds, repos and codes nobody knows: whole-quote subscriptions bring them too.
_OTHER_PREFIXES: Final = (("SH", "510"), ("SZ", "159"), ("SH", "113"), ("SZ", "123"), ("SH", "204"), ("SH", "751"))
_KNOWN_OTHERS: Final = ("510050.SH", "159915.SZ", "000010.SH", "399005.SZ", "113050.SH", "204001.SH", "900901.SH")

_NAMES: Final = {Kind.FUND: "基金", Kind.INDEX: "指数", Kind.CONVERTIBLE: "转债", Kind.REPO: "回购"}
_LIMITS: Final = {Kind.FUND: 10, Kind.CONVERTIBLE: 20}  # per cent; an index and a repo have none

#: Main-board ST shares move by 10 % instead of 5 % from this day on.
ST_TEN_PERCENT: Final = date(2026, 7, 6)
CHINEXT_TWENTY_PERCENT: Final = date(2020, 8, 24)


#: Sectors of the members of an index, and how many of the whole market there are.
_INDICES: Final = {"上证50": 50, "沪深300": 300, "中证500": 500, "中证1000": 1000}

#: Codes of the other kinds, well-known ones first.
_KINDS: Final[dict[Kind, tuple[tuple[str, ...], tuple[tuple[str, str], ...]]]] = {
    Kind.FUND: (
        ("510050.SH", "510300.SH", "159915.SZ", "588000.SH", "511880.SH", "159919.SZ", "501018.SH", "180101.SZ"),
        (("SH", "510"), ("SH", "512"), ("SH", "515"), ("SZ", "159"), ("SH", "588"), ("SZ", "161"), ("SH", "508")),
    ),
    Kind.INDEX: (
        ("000001.SH", "399001.SZ", "000300.SH", "399006.SZ", "000016.SH", "000905.SH", "000852.SH", "899050.BJ"),
        (("SH", "000"), ("SZ", "399")),
    ),
    Kind.CONVERTIBLE: (
        ("113050.SH", "110059.SH", "123219.SZ", "127045.SZ", "128136.SZ", "118034.SH", "111010.SH"),
        (("SH", "113"), ("SZ", "123"), ("SZ", "127"), ("SZ", "128"), ("SH", "118")),
    ),
    Kind.REPO: (("204001.SH", "131810.SZ", "204007.SH", "131801.SZ"), (("SH", "204"), ("SZ", "131"))),
}


@dataclass(frozen=True)
class SimulatedUniverse:
    """The codes of a market, each tuple sorted. *kinds*: listed, but no A-shares; *others*: in no sector."""

    shares: tuple[str, ...]
    others: tuple[str, ...]
    kinds: tuple[str, ...] = ()

    @property
    def listed(self) -> tuple[str, ...]:
        """Everything that some sector holds."""
        return self.shares + self.kinds

    @property
    def all(self) -> tuple[str, ...]:
        """Everything that a subscription by markets brings."""
        return self.shares + self.kinds + self.others


def _of_kind(kind: Kind, count: int) -> list[str]:
    """The first *count* codes of a kind."""
    famous, prefixes = _KINDS[kind]
    generated = (f"{p}{n:03d}.{m}" for n in range(1, 1000) for m, p in prefixes)
    return list(dict.fromkeys((*famous, *generated)))[:count]


def _codes(board: Board) -> list[str]:
    """All candidate symbols of a board, famous ones first, then in a fixed shuffled order."""
    market, prefixes = _PREFIXES[board]
    symbols = [
        f"{prefix}{n:03d}.{market}" for prefix in prefixes for n in range(1000) if f"{prefix}{n:03d}" != "000000"
    ]
    return sorted(symbols, key=lambda s: (s not in _FAMOUS, crc32(s.encode())))


@lru_cache(maxsize=8)
def universe(count: int, kinds: tuple[str, ...] = (Kind.STOCK.value,)) -> SimulatedUniverse:
    """A market of *count* instruments of these *kinds*, split over kinds and boards as the real one; and about 4 % of
    codes that are in no sector."""
    asked = [kind for kind in COUNTS if kind.value in kinds]
    whole = sum(COUNTS[kind] for kind in asked)
    sizes = {kind: max(1, count * COUNTS[kind] // whole) for kind in asked if kind is not Kind.STOCK}
    stocks = max(count - sum(sizes.values()), 0) if Kind.STOCK in asked else 0
    total = sum(_SHARES.values())
    wanted = {board: stocks * share // total for board, share in _SHARES.items()}
    for board in list(_SHARES)[: stocks - sum(wanted.values())]:  # the remainder of the division, at most 4
        wanted[board] += 1
    shares = [s for board, n in wanted.items() for s in _codes(board)[:n]]
    listed = [s for kind, n in sizes.items() for s in _of_kind(kind, n)]
    generated = (f"{p}{n:03d}.{m}" for n in range(1, 1000) for m, p in _OTHER_PREFIXES)
    others = [s for s in dict.fromkeys((*_KNOWN_OTHERS, *generated)) if s not in set(listed)]
    others = others[: max(len(_KNOWN_OTHERS), count // 25)]
    return SimulatedUniverse(tuple(sorted(shares)), tuple(sorted(others)), tuple(sorted(listed)))


def is_st(symbol: str) -> bool:
    """Whether the share is under special treatment: one in forty of the main boards."""
    main = board_of(symbol) in (Board.SH_MAIN, Board.SZ_MAIN)
    return main and symbol not in _FAMOUS and crc32(b"st" + symbol.encode()) % 40 == 0


def name_of(symbol: str) -> str:
    """The instrument's short name."""
    famous = _FAMOUS.get(symbol)
    if famous:
        return famous
    code = symbol[:6]
    if board_of(symbol) is None:
        return f"{_NAMES.get(instrument_of(symbol).kind, '其他')}{code}"
    return f"*ST模{code[2:]}" if is_st(symbol) else f"模拟{code}"


def limit_percent(symbol: str, day: date) -> int:
    """The daily price limit in per cent; codes that are no A-shares get a wide one."""
    board = board_of(symbol)
    if board is None:
        return _LIMITS.get(instrument_of(symbol).kind, 30)
    if board is Board.BSE:
        return 30
    if board is Board.STAR or (board is Board.CHINEXT and day >= CHINEXT_TWENTY_PERCENT):
        return 20
    return 5 if is_st(symbol) and day < ST_TEN_PERCENT else 10


def _index_members(shares: tuple[str, ...], size: int, day: date) -> tuple[str, ...]:
    """Members of an index: *size* of 5,150 shares, reviewed in the middle of June and of December."""
    reviews = 2 * day.year + (day >= date(day.year, 6, 16)) + (day >= date(day.year, 12, 15))

    def place(symbol: str) -> int:  # most stay from one review to the next
        return crc32(f"{size}{symbol}".encode()) // 2 + crc32(f"{size}{symbol}{reviews}".encode()) // 40

    count = max(1, len(shares) * size // sum(_SHARES.values())) if shares else 0
    return tuple(sorted(sorted(shares, key=place)[:count]))


def sectors(members: SimulatedUniverse, day: date) -> dict[str, tuple[str, ...]]:
    """QMT's sector names of the market with their members on *day*."""
    boards = {s: board_of(s) for s in members.shares}

    def of(*wanted: Board) -> tuple[str, ...]:
        return tuple(s for s in members.shares if boards[s] in wanted)

    def kind(wanted: Kind, *more: Kind | str) -> tuple[str, ...]:
        about = {s: instrument_of(s) for s in members.kinds}
        etf = "etf" in more
        return tuple(s for s, a in about.items() if a.kind in (wanted, *more) and (not etf or a.board == "etf"))

    return {
        "沪深京A股": members.shares,
        "沪深A股": of(Board.SH_MAIN, Board.STAR, Board.SZ_MAIN, Board.CHINEXT),
        "上证A股": of(Board.SH_MAIN, Board.STAR),
        "深证A股": of(Board.SZ_MAIN, Board.CHINEXT),
        "科创板": of(Board.STAR),
        "创业板": of(Board.CHINEXT),
        "京市A股": of(Board.BSE),
        "沪深ETF": kind(Kind.FUND, "etf"),
        "沪深基金": kind(Kind.FUND),
        "沪深指数": kind(Kind.INDEX),
        "沪深转债": kind(Kind.CONVERTIBLE),
        "沪深债券": kind(Kind.CONVERTIBLE, Kind.REPO),
        **{name: _index_members(members.shares, size, day) for name, size in _INDICES.items()},
    }
