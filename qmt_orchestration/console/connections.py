"""The console's HTTP connections: every request is complete in time and of bounded size, or its connection ends.

uvicorn limits idle keep-alive connections only. Here a request (line, headers and body) must be complete within
`REQUEST_SECONDS`, a reader that takes nothing for `WRITE_SECONDS` is disconnected, and when `MAX_CONNECTIONS` are open
the oldest one without a request is closed: connections that only wait never keep others out.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS: Final = 10.0
WRITE_SECONDS: Final = 30.0
MAX_CONNECTIONS: Final = 256
MAX_REQUESTS: Final = 200  # answered at the same time; more are refused with 503
MAX_HEADER_BYTES: Final = 16_384


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol over h11, with the limits of this module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting_since = self.loop.time()
        self._request_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a request is still to come, or its body is."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        others = [one for one in self.connections if isinstance(one, BoundedProtocol) and one is not self]
        waiting = [one for one in others if one.is_waiting and not one.transport.is_closing()]
        if len(others) >= MAX_CONNECTIONS and waiting:
            min(waiting, key=lambda one: one.waiting_since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._request_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _watch(self) -> None:
        """Start the time-out of the next request, or end it once the request is complete."""
        if not self.is_waiting:
            if self._request_timer is not None:
                self._request_timer.cancel()
                self._request_timer = None
        elif self._request_timer is None:
            self.waiting_since = self.loop.time()
            self._request_timer = self.loop.call_later(REQUEST_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        self._request_timer = None
        if self.is_waiting:
            self.transport.abort()
