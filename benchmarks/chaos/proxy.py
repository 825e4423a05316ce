"""A TCP proxy on loopback that can refuse, answer for the server, lose a reply after it has acted, or be slow."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

_CHUNK = 1 << 16
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(eq=False)
class _Line:
    """One connection through the proxy. *doomed*: its next reply is lost, and the connection with it."""

    inner: asyncio.StreamWriter
    outer: asyncio.StreamWriter
    doomed: bool = False

    def cut(self) -> None:
        for side in (self.inner, self.outer):
            side.transport.abort()


class Proxy:
    """Forwards a free port of its own (``port``) to *target*; all connections live in one thread.

    ``struck`` counts what was done to the traffic since the last change of behaviour.
    """

    def __init__(self, target: int) -> None:
        self.target, self.port, self.struck = target, 0, 0
        self._lines: set[_Line] = set()
        self._answer: bytes | None = None
        self._refusing = False
        self._needle, self._drops = b"", 0
        self._delay, self._bytes_per_second = 0.0, 0.0
        self._free_at = {"out": 0.0, "in": 0.0}  # when each direction of the line has room again
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """End all connections and the thread."""
        self._server.close()
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def pass_on(self) -> None:
        """Forward everything (how it begins)."""
        self._do(self._set())

    def refuse(self) -> None:
        """Cut every connection, and each new one at once."""
        self._do(self._set(refusing=True))

    def answer(self, reply: bytes) -> None:
        """Give *reply* to every request instead of forwarding it."""
        self._do(self._set(answer=reply))

    def drop_replies(self, needle: bytes, times: int) -> None:
        """Of the next *times* requests that contain *needle*, lose the reply after the server has acted."""
        self._do(self._set(needle=needle, drops=times))

    def slow(self, round_trip_seconds: float, megabits: float) -> None:
        """A line of this round trip and this rate in each direction, shared by all connections (0, 0: as it began)."""
        self._do(self._set_line(round_trip_seconds / 2, megabits * 125_000))

    def stall(self, seconds: float) -> None:
        """Nothing passes in either direction for *seconds*; nothing is lost."""
        self._do(self._stall(seconds))

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for line in self._lines:
            line.cut()

    async def _set_line(self, delay: float, bytes_per_second: float) -> None:
        self._delay, self._bytes_per_second = delay, bytes_per_second

    async def _stall(self, seconds: float) -> None:
        until = self._loop.time() + seconds
        self._free_at = {way: max(at, until) for way, at in self._free_at.items()}

    async def _pass(self, reader: asyncio.StreamReader, way: str) -> AsyncIterator[bytes]:
        """What *reader* gives, as late as the line makes it; what is under way is bounded, as in a socket's buffer."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def fill() -> None:
            data = b"begin"
            while data:
                try:
                    data = await reader.read(_CHUNK)
                except OSError:
                    data = b""  # reset: as an end, or the other side would wait permanently
                now = self._loop.time()
                cost = len(data) / self._bytes_per_second if self._bytes_per_second else 0.0
                self._free_at[way] = max(self._free_at[way], now) + cost
                await under_way.put((self._free_at[way] + self._delay, data))

        filling = asyncio.ensure_future(fill())
        try:
            while True:
                due, data = await under_way.get()
                if (wait := due - self._loop.time()) > 0:
                    await asyncio.sleep(wait)
                if not data:
                    return
                yield data
        finally:
            filling.cancel()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _set(
        self, *, refusing: bool = False, answer: bytes | None = None, needle: bytes = b"", drops: int = 0
    ) -> None:
        self._refusing, self._answer, self._needle, self._drops, self.struck = refusing, answer, needle, drops, 0
        for line in list(self._lines) if refusing else []:
            line.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            self.struck += 1
            writer.transport.abort()
            return
        try:
            back, onward = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        line = _Line(writer, onward)
        self._lines.add(line)
        with contextlib.suppress(OSError):
            await asyncio.gather(self._requests(line, reader), self._replies(line, back))
        line.cut()
        self._lines.discard(line)

    async def _requests(self, line: _Line, reader: asyncio.StreamReader) -> None:
        async for data in self._pass(reader, "out"):
            if self._answer is not None:
                await asyncio.sleep(0.02)  # the rest of the request is read meanwhile
                self.struck += 1
                line.inner.write(self._answer)
                await line.inner.drain()
                line.inner.close()
                await asyncio.sleep(0.2)
                break
            if self._drops and self._needle in data:
                self._drops -= 1
                line.doomed = True
            line.outer.write(data)
            await line.outer.drain()
        line.cut()

    async def _replies(self, line: _Line, back: asyncio.StreamReader) -> None:
        async for data in self._pass(back, "in"):
            if line.doomed:
                self.struck += 1
                break
            line.inner.write(data)
            await line.inner.drain()
        line.cut()
