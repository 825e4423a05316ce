"""What is kept on disk while Redis is away: entries in order, replayed with the ids and numbers they were given.

Files ``<data_dir>/feed/spool/<n>.spool``, appended to and never changed; ``position`` names how far they were
replayed. A record is ``QMT1``, lengths of header and payload, their CRC-32, a JSON header, the payload. What is
written is flushed to the operating system at once, so it survives SIGKILL; it is synced to the disk about once a
second, so a power failure costs at most that second. A record torn by a crash at the end of the newest file is cut off;
a damaged one elsewhere is passed over, and what stands behind it is replayed all the same. Both are counted (`torn`).
"""

from __future__ import annotations

import json
import logging
import os
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final
from zlib import crc32

from qmt_orchestration.stream.producer import NewEntry

log = logging.getLogger("feed.spool")

_MAGIC: Final = b"QMT1"
_HEAD: Final = struct.Struct("<4sIII")
SEGMENT_BYTES: Final = 64 * 1024 * 1024
_SYNC_SECONDS: Final = 1.0


class SpoolFull(RuntimeError):
    """The spool cannot take more; the message says why and what to change. Nothing was written."""


class Spool:
    """An append-only queue of entries in *folder*, at most *max_mb*. One process at a time; not thread-safe."""

    def __init__(self, folder: Path, max_mb: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.max_bytes = folder, max_mb * 1024 * 1024
        self.torn = 0  #: records that a crash tore or the disk damaged
        self._out: IO[bytes] | None = None
        self._synced = 0.0
        numbers = self._numbers()
        self._read_file, self._read_at = self._load_position(numbers)
        for number in numbers:
            if number < self._read_file:
                self._path(number).unlink()
        self._last = max([*numbers, self._read_file - 1])
        self.entries, self.rows = 0, 0
        self._take_over([number for number in numbers if number >= self._read_file])

    def __len__(self) -> int:
        return self.entries

    @property
    def bytes(self) -> int:
        """Bytes on disk, including what was replayed out of the file still in use."""
        return sum(self._path(n).stat().st_size for n in self._numbers())

    def append(self, entries: Sequence[NewEntry]) -> None:
        """Add *entries*, all or none. Raises `SpoolFull`."""
        data = b"".join(_encode(entry) for entry in entries)
        if self.bytes + len(data) > self.max_bytes:
            raise SpoolFull(
                f"expected at most {self.max_bytes >> 20} MB in {self.folder}, it is full: Redis has been away too "
                "long; bring it back, or raise QMT_SPOOL_MAX_MB. Callbacks wait meanwhile (back-pressure)"
            )
        start: int | None = None
        try:
            if self._out is None or self._out.tell() > SEGMENT_BYTES:
                self.close()
                self._out = self._path(self._last + 1).open("ab")
                self._last += 1
            start = self._out.tell()
            self._out.write(data)
            self._out.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._out.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            if start is not None:
                self._cut(start)
            raise SpoolFull(
                f"cannot write {len(data)} bytes to {self.folder}: {error.strerror}; free space on that disk or move "
                "QMT_DATA_DIR. Callbacks wait meanwhile (back-pressure)"
            ) from error
        self.entries += len(entries)
        self.rows += sum(int(entry.fields.get("rows", 0)) for entry in entries)

    def peek(self, count: int) -> list[tuple[NewEntry, tuple[int, int]]]:
        """The oldest *count* entries, each with the position behind it (for `advance`)."""
        out = []
        for item in self._scan():
            out.append(item)
            if len(out) == count:
                break
        return out

    def all(self) -> Iterator[NewEntry]:
        """Every entry not yet replayed, oldest first."""
        return (entry for entry, _ in self._scan())

    def advance(self, done: Sequence[tuple[NewEntry, tuple[int, int]]]) -> None:
        """*done* (from `peek`) is in Redis: forget it. Files replayed to their end are deleted."""
        if not done:
            return
        self._read_file, self._read_at = done[-1][1]
        self.entries -= len(done)
        self.rows -= sum(int(entry.fields.get("rows", 0)) for entry, _ in done)
        if not self.entries:
            self.close()  # a new file next time, so that this one can go
            self._read_file, self._read_at = self._last + 1, 0
        self._save_position()
        for number in self._numbers():
            if number < self._read_file:
                self._path(number).unlink()

    def close(self) -> None:
        """Sync and close the file being written; the spool stays usable."""
        if self._out is not None:
            self._out.flush()
            os.fsync(self._out.fileno())
            self._out.close()
            self._out = None

    def _cut(self, size: int) -> None:
        """Undo a failed write: what Python buffered must not reach the file later."""
        assert self._out is not None
        name = self._out.name
        try:
            self._out.close()
        except OSError:
            log.debug("closing %s failed after a failed write", name)
        self._out = None
        os.truncate(name, size)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.spool"

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.spool"))

    def _load_position(self, numbers: list[int]) -> tuple[int, int]:
        first = numbers[0] if numbers else 1
        try:
            saved = json.loads((self.folder / "position").read_text())
            position = int(saved["file"]), int(saved["at"])
        except (OSError, ValueError, KeyError):
            return first, 0  # unknown: replayed from the start, repeats are recognised by their ids
        return position if position[0] >= first else (first, 0)

    def _save_position(self) -> None:
        """Note how far was replayed. A full disk must not hold up the replay that empties it: then nothing is noted."""
        new, kept = self.folder / "position.new", self.folder / "position"
        try:
            new.write_text(json.dumps({"file": self._read_file, "at": self._read_at}))
            new.replace(kept)
        except OSError as error:
            log.warning("%s cannot be written (%s): a restart would replay a little more", kept, error.strerror)
            new.unlink(missing_ok=True)
            kept.unlink(missing_ok=True)

    def _take_over(self, numbers: list[int]) -> None:
        """Count what is there and what is damaged; cut a torn record off the newest file, so that it can grow."""
        for number in numbers:
            path, good = self._path(number), 0
            with path.open("rb") as file:
                for entry, start, end in _records(file, 0):
                    if start > good:
                        self.torn += 1
                        log.error("%s: %d damaged bytes at %d are passed over", path, start - good, good)
                    if (number, start) >= (self._read_file, self._read_at):
                        self.entries += 1
                        self.rows += int(entry.fields.get("rows", 0))
                    good = end
            left = path.stat().st_size - good
            if left:
                self.torn += 1
                log.warning("%s: %d bytes of a record torn by a crash at its end", path, left)
                if number == self._last:
                    os.truncate(path, good)

    def _scan(self) -> Iterator[tuple[NewEntry, tuple[int, int]]]:
        for number in self._numbers():
            if number < self._read_file:
                continue
            with self._path(number).open("rb") as file:
                for entry, _, end in _records(file, self._read_at if number == self._read_file else 0):
                    yield entry, (number, end)


def _encode(entry: NewEntry) -> bytes:
    fields = {name: value for name, value in entry.fields.items() if name != "payload"}
    header = json.dumps({"stream": entry.stream, "id": entry.id, "fields": fields}).encode()
    payload = bytes(entry.fields["payload"])
    return _HEAD.pack(_MAGIC, len(header), len(payload), crc32(payload, crc32(header))) + header + payload


def _records(file: IO[bytes], start: int) -> Iterator[tuple[NewEntry, int, int]]:
    """Whole records from *start*, each with where it begins and ends; what is damaged is passed over."""
    file.seek(start)
    while True:
        begin = file.tell()
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return
        magic, header_size, payload_size, checksum = _HEAD.unpack(head)
        whole = magic == _MAGIC and begin + _HEAD.size + header_size + payload_size <= os.fstat(file.fileno()).st_size
        if whole:
            header, payload = file.read(header_size), file.read(payload_size)
            if crc32(payload, crc32(header)) == checksum:
                about: dict[str, Any] = json.loads(header)
                entry = NewEntry(about["stream"], about["id"], {**about["fields"], "payload": payload})
                yield entry, begin, file.tell()
                continue
        file.seek(begin + 1)
        rest = file.read()  # at most a file of SEGMENT_BYTES and one record, and only after a crash
        found = rest.find(_MAGIC)
        if found < 0:
            return
        file.seek(begin + 1 + found)
