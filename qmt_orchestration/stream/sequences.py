"""Exact account of batches: which sequence numbers of each feed session have arrived, as ranges.

Loss is what is missing below the highest number seen, repeats are numbers that came again. Late numbers close their
gap, so two writers or a redelivery do not count as loss.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from qmt_orchestration.stream import fields


@dataclass
class Sequence:
    """Numbers of one session and stream: disjoint ranges [first, last], ascending, and how many came again."""

    ranges: list[list[int]] = field(default_factory=list)
    repeats: int = 0

    def __contains__(self, number: int) -> bool:
        i = bisect_right(self.ranges, number, key=lambda r: r[0]) - 1
        return i >= 0 and number <= self.ranges[i][1]

    def add(self, number: int) -> bool:
        """Record *number*; False if it had come before (counted as a repeat)."""
        if number in self:
            self.repeats += 1
            return False
        i = bisect_right(self.ranges, number, key=lambda r: r[0])
        self.ranges.insert(i, [number, number])
        for j in (i, i - 1):  # join with the neighbours
            if 0 <= j < len(self.ranges) - 1 and self.ranges[j][1] + 1 == self.ranges[j + 1][0]:
                self.ranges[j][1] = self.ranges[j + 1][1]
                del self.ranges[j + 1]
        return True

    @property
    def lost(self) -> int:
        """Numbers missing from 0 to the highest one seen."""
        if not self.ranges:
            return 0
        return self.ranges[-1][1] + 1 - sum(last - first + 1 for first, last in self.ranges)

    def dump(self) -> str:
        """As text, for a Redis hash."""
        return json.dumps({"ranges": self.ranges, "repeats": self.repeats}, separators=(",", ":"))

    @classmethod
    def load(cls, text: bytes | str | None) -> Sequence:
        """From `dump`; an empty one for None, and for what is none (counted)."""
        if not text:
            return cls()
        try:
            data = fields.require_json_object({"sequence": text}, "sequence")
            ranges, repeats = data.get("ranges"), data.get("repeats")
            if ranges is None or not _are_ranges(ranges) or type(repeats) is not int or repeats < 0:
                raise fields.FieldError(f"sequence: expected ascending ranges, found {fields.decoded(text, 80)!r}")
        except fields.FieldError as error:
            fields.skip("sequence", error)
            return cls()
        return cls(ranges=ranges, repeats=repeats)


def _are_ranges(found: Any) -> bool:
    """Whether *found* is a list of disjoint [first, last], ascending, of numbers from 0 to 2^63."""
    last = -1
    for pair in found if isinstance(found, list) else [None]:
        if not isinstance(pair, list) or len(pair) != 2 or any(type(number) is not int for number in pair):
            return False
        if not last < pair[0] <= pair[1] <= fields.HIGH:
            return False
        last = pair[1]
    return True
