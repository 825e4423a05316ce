"""Exact account of batches: which sequence numbers of each feed session have arrived, as ranges.

Loss is what is missing below the highest number seen, repeats are numbers that came again. Late numbers close their
gap, so two writers or a redelivery do not count as loss.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass, field


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
        """From `dump`; an empty one for None."""
        if not text:
            return cls()
        data = json.loads(text)
        return cls(ranges=data["ranges"], repeats=data["repeats"])
