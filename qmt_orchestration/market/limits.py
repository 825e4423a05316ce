"""Price limits by kind, board, date, ST mark and days since listing, in exact decimals.

Price = previous close × (1 ± rate), rounded half up to the instrument's price tick (SSE and SZSE trading rules); in
binary floats 1.15 × 1.1 would give 1.26 instead of 1.27. Indices, repo and plain bonds have none. QMT's own
``UpStopPrice``/``DownStopPrice`` win where known. The rules of shares and their dates are tested against the dated
records of the package ``marina-rules``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from qmt_orchestration.market.instruments import Instrument, Kind
from qmt_orchestration.market.symbols import Board, board_of, fund_of

TICK: Final = Decimal("0.01")

CHINEXT_REFORM: Final = date(2020, 8, 24)  # 20 %, also for ST; no limits on the first five days
REGISTRATION: Final = date(2023, 4, 10)  # main boards: first five days without limits; SSE adopts the one-tick floor
ST_REFORM: Final = date(2026, 7, 6)  # ST on the main boards: 10 % instead of 5 %
SSE_FIRST_DAY: Final = date(2013, 12, 13)  # +44 % / −36 % of the issue price on the first day, until REGISTRATION
SZSE_FIRST_DAY: Final = date(2014, 6, 13)
SZSE_TICK_FLOOR: Final = date(2011, 2, 28)
CONVERTIBLE_LIMITS: Final = date(2022, 8, 1)  # 20 %; on the first day +57.3 % / -43.3 % of the issue price
BJ_MIGRATION: Final = date(2025, 10, 9)  # codes moved to 920…: an open date of that day is no new listing

_TEN, _FIVE, _TWENTY, _THIRTY = Decimal("0.10"), Decimal("0.05"), Decimal("0.20"), Decimal("0.30")
_FIRST_DAY_RATES: Final = (Decimal("0.44"), Decimal("0.36"))
_CONVERTIBLE_FIRST_DAY: Final = (Decimal("0.573"), Decimal("0.433"))


@dataclass(frozen=True)
class PriceLimits:
    """Highest and lowest price of a day, yuan."""

    up: Decimal
    down: Decimal


def is_st_name(name: str) -> bool:
    """Whether an instrument's short name carries the risk-warning mark (``ST``, ``*ST``, ``S*ST``, ``SST``)."""
    bare = name.upper().replace(" ", "").removeprefix("S*").removeprefix("*")
    return bare.startswith(("ST", "SST"))


def limit_rates(board: Board, day: date, *, st: bool = False, listed_day: int = 0) -> tuple[Decimal, Decimal] | None:
    """Rates up and down in force on *day*; None = no limit.

    *listed_day* counts trading days since listing: 1 is the first; 0 = long ago.
    """
    main = board in (Board.SH_MAIN, Board.SZ_MAIN)
    old_chinext = board is Board.CHINEXT and day < CHINEXT_REFORM
    if listed_day == 1 and (board is Board.BSE or ((main and day < REGISTRATION) or old_chinext)):
        return _first_day_rates(board, day)
    if 1 <= listed_day <= 5 and board is not Board.BSE and not (main and day < REGISTRATION) and not old_chinext:
        return None
    if board is Board.BSE:
        rate = _THIRTY
    elif board is Board.STAR or (board is Board.CHINEXT and not old_chinext):
        rate = _TWENTY
    else:
        rate = _FIVE if st and day < ST_REFORM else _TEN
    return rate, rate


def _first_day_rates(board: Board, day: date) -> tuple[Decimal, Decimal] | None:
    if board is Board.BSE:
        return None
    since = SSE_FIRST_DAY if board is Board.SH_MAIN else SZSE_FIRST_DAY
    return _FIRST_DAY_RATES if day >= since else None


def round_to_tick(price: Decimal, tick: Decimal = TICK) -> Decimal:
    """*price* rounded half up to *tick*."""
    return price.quantize(tick, rounding=ROUND_HALF_UP)


def price_limits(
    board: Board, day: date, pre_close: Decimal | float | str, *, st: bool = False, listed_day: int = 0
) -> PriceLimits | None:
    """The day's limits from the previous close (yuan; the issue price on the first day); None = no limit.

    A band narrower than one tick is widened to one tick (SZSE since 2011-02-28, SSE since 2023-04-10). Raises
    `ValueError` for a previous close that is not above 0.
    """
    close = round_to_tick(Decimal(str(pre_close)))
    if not close > 0:
        raise ValueError(f"expected a previous close above 0 yuan, found {pre_close}")
    rates = limit_rates(board, day, st=st, listed_day=listed_day)
    if rates is None:
        return None
    up, down = round_to_tick(close * (1 + rates[0])), round_to_tick(close * (1 - rates[1]))
    if day >= (SZSE_TICK_FLOOR if board in (Board.SZ_MAIN, Board.CHINEXT) else REGISTRATION):
        up, down = max(up, close + TICK), min(down, close - TICK)
    return PriceLimits(up, down)


def limits_of(
    about: Instrument, day: date, pre_close: Decimal | float | str, *, st: bool = False, listed_day: int = 0
) -> PriceLimits | None:
    """The limits of any instrument from its previous close; None = no limit, or none that a rule gives.

    Funds that may have 20 % get 20 %: which of them do follows from their index, not from their code. Raises
    `ValueError` like `price_limits`.
    """
    board = board_of(about.symbol)
    if board is not None:
        return price_limits(board, day, pre_close, st=st, listed_day=listed_day)
    if about.kind is Kind.FUND:
        rate = _TWENTY if fund_of(about.symbol) else _TEN
        rates = (_THIRTY, _THIRTY) if about.board == "reit" and listed_day == 1 else (rate, rate)
    elif about.kind is Kind.CONVERTIBLE and day >= CONVERTIBLE_LIMITS:
        rates = _CONVERTIBLE_FIRST_DAY if listed_day == 1 else (_TWENTY, _TWENTY)
    elif about.board == "b_share":
        rates = (_TEN, _TEN)
    else:
        return None
    tick = Decimal(str(about.price_tick))
    close = round_to_tick(Decimal(str(pre_close)), tick)
    if not close > 0:
        raise ValueError(f"expected a previous close above 0, found {pre_close}")
    up, down = round_to_tick(close * (1 + rates[0]), tick), round_to_tick(close * (1 - rates[1]), tick)
    return PriceLimits(max(up, close + tick), min(down, close - tick))
