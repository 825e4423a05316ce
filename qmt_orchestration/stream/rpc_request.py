"""A request to the gateway as it stands on the stream: checked before anything is done for it, and how large it is.

The size of a request is counted in symbol-days of minute bars: symbols × days of ``[start, end]``, a day of daily bars
as 1/241. It bounds memory (QMT answers for up to 200 symbols at once), and small requests do not wait for large ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from qmt_orchestration.market.sessions import FRAMES_PER_DAY
from qmt_orchestration.stream import fields
from qmt_orchestration.stream.groups import Entry

MOST_SYMBOLS: Final = 20_000
SMALL: Final = 1_000  # symbol-days; a larger request leaves one worker free
LONGEST_MS: Final = 3_600_000  # a deadline further away is refused
_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
_DATE: Final = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(\d{6})?")


class Refused(ValueError):
    """The request asks for too much; the message says what the limit is and what to do."""


@dataclass(frozen=True)
class Request:
    """One request; *entry* is what is acknowledged."""

    entry: Entry
    id: str
    method: str
    params: dict[str, Any]
    deadline_ms: int

    @property
    def is_small(self) -> bool:
        """Whether it may use the worker that large requests leave free."""
        return symbol_days(self.params) <= SMALL


def parse(entry: Entry) -> Request:
    """The request in *entry*; `FieldError` when it is none."""
    return Request(
        entry,
        request_id(entry),
        fields.require_text(entry.fields, "method", 64),
        fields.require_json_object(entry.fields, "params"),
        fields.require_integer(entry.fields, "deadline_ms", 0),
    )


def request_id(entry: Entry) -> str:
    """The id, which becomes part of the reply's key; `FieldError` when it is none."""
    found = fields.require_text(entry.fields, "id", 64)
    if not _ID.fullmatch(found):
        raise fields.FieldError(f"id: expected 1 to 64 letters, digits, '-' or '_', found {found!r}")
    return found


def check(request: Request, now_ms: float, most_symbol_days: int) -> None:
    """`Refused` when the request is beyond a limit."""
    if request.deadline_ms > now_ms + LONGEST_MS:
        seconds = (request.deadline_ms - now_ms) / 1000
        raise Refused(f"expected a deadline within {LONGEST_MS // 1000} s, found {seconds:.0f} s")
    size = symbol_days(request.params)
    if size > most_symbol_days:
        raise Refused(
            f"expected at most {most_symbol_days:,} symbol-days in one request, found {size:,.0f}: ask for fewer "
            "symbols or days at once (QMT_GATEWAY_SYMBOL_DAYS)"
        )


def symbol_days(params: dict[str, Any]) -> float:
    """Size of a request; 0 for one that names no symbols. `Refused` when its symbols or dates are out of bounds.

    What has another type is the handler's to refuse: it knows the name of the method's parameters.
    """
    symbols = params.get("symbols")
    if not isinstance(symbols, list):
        return 0
    if len(symbols) > MOST_SYMBOLS:
        raise Refused(f"symbols: expected at most {MOST_SYMBOLS:,}, found {len(symbols):,}")
    if any(isinstance(symbol, str) and len(symbol) > 32 for symbol in symbols):
        raise Refused("symbols: expected codes like 000001.SZ, found one of more than 32 characters")
    days = 1.0
    if params.get("start") and params.get("end"):
        first, last = _date("start", params["start"]), _date("end", params["end"])
        if last < first:
            raise Refused(f"expected start before end, found {first} and {last}")
        days = (last - first).days + 1
    return len(symbols) * days / (FRAMES_PER_DAY if params.get("period") == "1d" else 1)


def _date(name: str, value: Any) -> date:
    found = _DATE.fullmatch(value) if isinstance(value, str) else None
    try:
        if found is None:
            raise ValueError
        return date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        raise Refused(f"{name}: expected a date like 20250605, found {value!r:.40}") from None
