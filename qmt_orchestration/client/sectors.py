"""Members of sectors on a day: as stored each day (asset ``sector_members``), else of boards by the instrument list."""

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
    """Sorted members on *day* (None = the newest list), None for a sector of which nothing is known on that day."""
    on = day or date(2149, 6, 6)
    stored = [row[0] for row in reading.rows(settings, "members_on", {"sector": sector, "day": on})]
    if stored:
        return stored
    boards = NAMES.get(sector)
    if boards is None:
        return None
    wanted = {board.value for board in boards}
    found = reading.rows(settings, "listed_on", {"day": on})
    return [symbol for symbol, board in found if board in wanted]


def known(settings: Settings | None) -> dict[str, date | None]:
    """Sectors that have members, and since which day they are stored (None: they follow from the instrument list)."""
    stored = dict[str, date | None](reading.rows(settings, "member_sectors"))
    return {**dict.fromkeys(NAMES), **stored}


def missing(settings: Settings | None, sector: str) -> str:
    """Why `members_of` has no answer, and what there is."""
    there = known(settings)
    since = there.get(sector)
    if since:
        return f"members of sector {sector!r} are stored from {since} on: who was in it before is not known"
    return (
        f"the warehouse holds no members of sector {sector!r}: there are {', '.join(there)}; name it in "
        "QMT_MEMBER_SECTORS and materialize sector_members"
    )
