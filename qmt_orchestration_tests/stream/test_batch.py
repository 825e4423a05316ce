"""Payloads from outside: what is malformed is refused before it costs memory, and never crashes the reader."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from qmt_orchestration.market.schema import TICK_SCHEMA
from qmt_orchestration.stream.batch import PayloadError, cut_book, declared, decode, decode_together, encode, splice
from qmt_orchestration_tests.stream.ticks import tick_table

LIMIT = 1 << 20
BOOKS = ["askPrice", "bidPrice", "askVol", "bidVol"]


def test_a_batch_comes_back_as_it_was() -> None:
    table = tick_table(500)
    assert decode(encode(table), max_bytes=LIMIT).equals(table)


def test_declared_size_is_known_without_decoding() -> None:
    table = tick_table(500)
    size, batches = declared(encode(table))
    assert size == pytest.approx(table.nbytes, rel=0.05)
    assert batches == 1


def test_spliced_payloads_read_as_one_table() -> None:
    tables = [tick_table(n, seq=n) for n in (1, 50, 7)]
    spliced = splice([encode(t) for t in tables])
    assert spliced is not None
    assert decode(spliced, max_bytes=LIMIT).equals(pa.concat_tables(tables))
    assert splice([encode(tables[0]), encode(tables[1].drop(["seq"]))]) is None


def test_payloads_decoded_together_are_those_decoded_alone_and_one_that_is_refused_is_not_among_them() -> None:
    tables = [tick_table(n, seq=n) for n in (1, 50, 7)]
    payloads = [encode(t) for t in tables]
    together = decode_together(payloads, max_bytes=LIMIT)
    assert together is not None
    assert [pa.Table.from_batches([batch]) for batch in together] == tables
    holed = tables[1].set_column(2, TICK_SCHEMA.field(2).name, pa.array([None] * 50, pa.float64()))
    two = encode(pa.concat_tables([tables[0], tables[2]]))  # two record batches, and one payload without any
    empty = encode(TICK_SCHEMA.empty_table())
    for others in ([b""], [payloads[1][:-20]], [encode(holed)], [encode(tables[1].drop(["pvolume"]))], [two, empty]):
        assert decode_together([*payloads, *others], max_bytes=LIMIT) is None
    assert decode_together(payloads, max_bytes=len(payloads[1]) - 1) is None


def test_bytes_after_the_end_of_a_stream_are_refused() -> None:
    """Spliced, it would cut off the entries after it."""
    payload = encode(tick_table(3))
    with pytest.raises(PayloadError, match="8 bytes after its end"):
        decode(payload + payload[-8:], max_bytes=LIMIT)


@pytest.mark.parametrize("levels", [0, 1, 5])
def test_a_cut_book_keeps_its_columns_and_their_first_levels(levels: int) -> None:
    table = tick_table(50)
    cut = cut_book(table, levels)
    assert cut.schema == TICK_SCHEMA
    assert cut.column("askPrice").to_pylist() == [[1, 2, 3, 4, 5][:levels]] * 50
    assert cut.drop(BOOKS).equals(table.drop(BOOKS))
    assert decode(encode(cut), max_bytes=LIMIT).equals(cut)


def test_a_payload_above_the_limit_is_refused() -> None:
    with pytest.raises(PayloadError, match="QMT_STREAM_MAX_PAYLOAD_MB"):
        decode(b"\0" * (LIMIT + 1), max_bytes=LIMIT)


def test_a_small_payload_that_would_expand_is_refused_before_it_does() -> None:
    bomb = encode(pa.table({"a": np.zeros(8_000_000)}))
    assert len(bomb) < LIMIT
    before = pa.total_allocated_bytes()
    with pytest.raises(PayloadError, match="declares 64000000 bytes"):
        decode(bomb, max_bytes=LIMIT, expected=None)
    assert pa.total_allocated_bytes() - before < LIMIT


def test_a_payload_of_very_many_small_batches_is_refused() -> None:
    one = tick_table(1)
    with pytest.raises(PayloadError, match="more than 1000 record batches"):
        decode(encode(pa.concat_tables([one] * 1001)), max_bytes=1 << 24)


def test_another_schema_is_refused_by_name() -> None:
    wrong = tick_table(3).drop(["pvolume"])
    with pytest.raises(PayloadError, match="pvolume"):
        decode(encode(wrong), max_bytes=LIMIT)


def test_nulls_are_refused() -> None:
    table = tick_table(3)
    for name, values in (("lastPrice", [1.0, None, 2.0]), ("askVol", [[1], [None], [2]])):
        i = TICK_SCHEMA.get_field_index(name)
        holed = table.set_column(i, name, pa.array(values, TICK_SCHEMA.field(name).type))
        with pytest.raises(PayloadError, match=f"column {name}: 1 nulls"):
            decode(encode(holed), max_bytes=LIMIT)


def test_damaged_payloads_are_refused_or_read_whole_and_never_crash() -> None:
    rnd = random.Random(3)
    payload = encode(tick_table(100))
    refused = 0
    for _ in range(1500):
        damaged = bytearray(payload)
        for _ in range(rnd.randint(1, 6)):
            damaged[rnd.randrange(len(damaged))] = rnd.randrange(256)
        if rnd.random() < 0.2:
            del damaged[rnd.randrange(len(damaged)) :]
        try:
            decode(bytes(damaged), max_bytes=LIMIT).to_pylist()
        except PayloadError:
            refused += 1
    assert refused > 1000
