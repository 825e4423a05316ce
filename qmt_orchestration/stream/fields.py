"""Values read from Redis, typed and bounded: anybody with access to the server can have written them.

Two forms of each function. ``integer(fields, "rate")`` is for statistics and states: a value that is absent gives the
default; one that has another type, is not finite, out of range or too long gives the default too, and is counted
(`skipped`, shown in every heartbeat as ``skipped_fields``). ``require_integer`` is for entries that are useless without
the value: it raises `FieldError`, and the caller skips the entry or moves it to the dead letters.

Names may be text or bytes in the mapping: raw replies of Redis and decoded ones are read alike.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Mapping
from typing import Any, Final

log = logging.getLogger(__name__)

LOW: Final = -(2**63)
HIGH: Final = 2**63 - 1
FIRST_MS: Final = 631_152_000_000  # 1990-01-01: no market time of ours is earlier
LAST_MS: Final = 4_102_444_800_000  # 2100-01-01
_NUMBER_CHARACTERS: Final = 64  # no number is longer; Python's int() is quadratic in the digits
_TEXT_CHARACTERS: Final = 4096
_JSON_CHARACTERS: Final = 1 << 20
_LOGGED_NAMES: Final = 200


class FieldError(ValueError):
    """A value is absent or wrong; the message says which, what was expected and what was found."""


class _Count:
    """How many values were skipped in this process. Each name is logged once, so that a flood of them logs nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged: set[str] = set()
        self.total = 0

    def add(self, name: str, reason: object) -> None:
        with self._lock:
            self.total += 1
            first = name not in self._logged and len(self._logged) < _LOGGED_NAMES
            if first:
                self._logged.add(name)
        if first:
            log.warning("a value from Redis is skipped (logged once per name): %s", reason)


_count = _Count()


def skipped() -> int:
    """Values of this process that were wrong and were skipped, since its start."""
    return _count.total


def skip(name: str, reason: object) -> None:
    """Count one skipped value or entry called *name*."""
    _count.add(name, reason)


# -- a default in place of what is wrong -----------------------------------------------------------------------------


def integer(fields: Mapping[Any, Any], name: str, default: int = 0, low: int = LOW, high: int = HIGH) -> int:
    """A whole number in [*low*, *high*]."""
    if _raw(fields, name) is None:
        return default
    try:
        return require_integer(fields, name, low, high)
    except FieldError as error:
        skip(name, error)
        return default


def number(
    fields: Mapping[Any, Any], name: str, default: float = 0.0, low: float = -math.inf, high: float = math.inf
) -> float:
    """A finite number in [*low*, *high*]."""
    if _raw(fields, name) is None:
        return default
    try:
        return require_number(fields, name, low, high)
    except FieldError as error:
        skip(name, error)
        return default


def text(fields: Mapping[Any, Any], name: str, default: str = "", limit: int = _TEXT_CHARACTERS) -> str:
    """Text, cut at *limit* characters; bytes that are no UTF-8 are replaced."""
    raw = _raw(fields, name)
    return default if raw is None else decoded(raw, limit)


def integers(fields: Mapping[Any, Any], low: int = LOW, high: int = HIGH) -> dict[str, int]:
    """A whole hash of whole numbers; entries that are none are left out and counted."""
    out: dict[str, int] = {}
    for name, raw in fields.items():
        try:
            out[decoded(name, 256)] = require_integer({"value": raw}, "value", low, high)
        except FieldError as error:
            skip("hash of numbers", f"{decoded(name, 40)!r}: {error}")
    return out


def decoded_hash(fields: Mapping[Any, Any], limit: int = _TEXT_CHARACTERS) -> dict[str, str]:
    """A whole hash as text, names and values cut at *limit* characters."""
    return {decoded(name, 256): decoded(value, limit) for name, value in fields.items()}


def decoded(raw: Any, limit: int = _TEXT_CHARACTERS) -> str:
    """Bytes or text as text of at most *limit* characters."""
    if isinstance(raw, bytes):
        return raw[: 4 * limit].decode(errors="replace")[:limit]
    return str(raw)[:limit]


# -- an error for what is wrong --------------------------------------------------------------------------------


def require_integer(fields: Mapping[Any, Any], name: str, low: int = LOW, high: int = HIGH) -> int:
    """A whole number in [*low*, *high*], or `FieldError`."""
    raw = _number_text(fields, name)
    try:
        value = int(raw)
    except ValueError:
        raise FieldError(f"{name}: expected a whole number, found {raw[:40]!r}") from None
    if not low <= value <= high:
        raise FieldError(f"{name}: expected a whole number from {low} to {high}, found {raw[:40]}")
    return value


def require_number(fields: Mapping[Any, Any], name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number in [*low*, *high*], or `FieldError`."""
    raw = _number_text(fields, name)
    try:
        value = float(raw)
    except ValueError:
        raise FieldError(f"{name}: expected a number, found {raw[:40]!r}") from None
    if not math.isfinite(value) or not low <= value <= high:
        raise FieldError(f"{name}: expected a finite number from {low:g} to {high:g}, found {raw[:40]}")
    return value


def require_text(fields: Mapping[Any, Any], name: str, limit: int = _TEXT_CHARACTERS) -> str:
    """UTF-8 text of 1 to *limit* characters, or `FieldError`."""
    raw = _required(fields, name)
    if len(raw) > 4 * limit:
        raise FieldError(f"{name}: expected at most {limit} characters, found {len(raw)} bytes")
    try:
        value = raw.decode() if isinstance(raw, bytes) else str(raw)
    except UnicodeDecodeError:
        raise FieldError(f"{name}: expected UTF-8 text, found {bytes(raw[:20])!r}") from None
    if not 0 < len(value) <= limit:
        raise FieldError(f"{name}: expected 1 to {limit} characters, found {len(value)}")
    return value


def require_json_object(fields: Mapping[Any, Any], name: str, limit: int = _JSON_CHARACTERS) -> dict[str, Any]:
    """A JSON object, without NaN and Infinity, or `FieldError`."""
    value = _json(_required(fields, name), name, limit)
    if not isinstance(value, dict):
        raise FieldError(f"{name}: expected a JSON object, found {type(value).__name__}")
    return value


def list_of(raw: Any, name: str, limit: int = _JSON_CHARACTERS) -> list[Any]:
    """The JSON array in *raw*, without NaN and Infinity, or `FieldError`."""
    value = _json(raw, name, limit)
    if not isinstance(value, list):
        raise FieldError(f"{name}: expected a JSON array, found {type(value).__name__}")
    return value


def finite(value: Any) -> Any:
    """*value* as JSON can carry it: NaN and Infinity, at any depth, become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def _json(raw: Any, name: str, limit: int) -> Any:
    if len(raw) > limit:
        raise FieldError(f"{name}: expected at most {limit} bytes of JSON, found {len(raw)}")
    try:
        return json.loads(raw, parse_constant=_no_constant, parse_int=_json_integer)
    except (ValueError, RecursionError) as error:
        raise FieldError(f"{name}: expected JSON, found {decoded(raw, 40)!r} ({str(error)[:100]})") from None


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _json_integer(digits: str) -> int:
    if len(digits) > _NUMBER_CHARACTERS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _number_text(fields: Mapping[Any, Any], name: str) -> str:
    raw = _required(fields, name)
    if len(raw) > _NUMBER_CHARACTERS:
        raise FieldError(f"{name}: expected a number, found {len(raw)} characters")
    value = decoded(raw, _NUMBER_CHARACTERS)
    if not value.isascii() or "_" in value:  # Python reads 1_000 and digits of any script, nobody else does
        raise FieldError(f"{name}: expected a number, found {value[:40]!r}")
    return value


def _required(fields: Mapping[Any, Any], name: str) -> Any:
    raw = _raw(fields, name)
    if raw is None:
        raise FieldError(f"{name}: expected a value, the field is missing")
    return raw if isinstance(raw, bytes) else str(raw)


def _raw(fields: Mapping[Any, Any], name: str) -> Any:
    raw = fields.get(name)
    return fields.get(name.encode()) if raw is None else raw
