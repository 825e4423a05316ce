"""The account of batch numbers: exact loss and repeats, in any order of arrival."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qmt_orchestration.stream.sequences import Sequence


@given(st.lists(st.integers(0, 60)))
def test_loss_and_repeats_equal_those_of_plain_sets(numbers: list[int]) -> None:
    sequence = Sequence()
    for number in numbers:
        sequence.add(number)
        sequence = Sequence.load(sequence.dump())
    seen = set(numbers)
    assert sequence.lost == (max(seen) + 1 - len(seen) if seen else 0)
    assert sequence.repeats == len(numbers) - len(seen)
    assert [n for n in range(62) if n in sequence] == sorted(seen)
    assert all(b[0] > a[1] + 1 for a, b in zip(sequence.ranges, sequence.ranges[1:], strict=False))
