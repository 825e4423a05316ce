"""Sectors whose members follow from the stored instrument list: those of exchanges and boards."""

from __future__ import annotations

from datetime import date
from typing import Final

from qmt_orchestration.client import reading
from qmt_orchestration.market.symbols import Board
from qmt_orchestration.settings import Settings

_SH: Final = (Board.SH_MAIN, Board.STAR)
_SZ: Final = (Board.SZ_MAIN, Board.CHINEXT)
#: The terminal's names of the sectors, with the boards they consist of.
NAMES: Final[dict[str, tuple[Board, ...]]] = {
    "沪深京A股": (*_SH, *_SZ, Board.BSE),
    "沪深A股": (*_SH, *_SZ),
    "上证A股": _SH,
    "深证A股": _SZ,
    "科创板": (Board.STAR,),
    "创业板": (Board.CHINEXT,),
    "京市A股": (Board.BSE,),
}


def members_of(settings: Settings | None, sector: str, day: date | None = None) -> list[str] | None:
    """Sorted members on *day* (None = the newest list), None for a sector that is not known here."""
    boards = NAMES.get(sector)
    if boards is None:
        return None
    wanted = {board.value for board in boards}
    found = reading.rows(settings, "listed_on", {"day": day or date(2149, 6, 6)})
    return [symbol for symbol, board in found if board in wanted]
