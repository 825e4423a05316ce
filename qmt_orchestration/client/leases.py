"""Who may read: a lease in Redis per client and per shard, and acknowledgements that only its holder can give.

A holder renews about once a second. One that was stopped or cut off for longer than `TTL_MS` no longer holds it, knows
so by its own monotonic clock (`ReaderLease.valid`), and its acknowledgements are refused by Redis (`acknowledge`), so a
shard is never finished by two members.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from qmt_orchestration.stream.fields import decoded
from qmt_orchestration.stream.lease import RELEASE, RENEW

TTL_MS: Final = 5000
_CHUNK: Final = 500  # ids or symbols per script call: far below Lua's limit on arguments

# A lease that expired and that nobody took is no obstacle: nobody else can have begun with these entries.
_ACKNOWLEDGE: Final = """
local holder = redis.call('get', KEYS[1])
if holder and holder ~= ARGV[1] then return -1 end
local n, i, done = tonumber(ARGV[3]), 4, 0
for k = 1, n do done = done + redis.call('xack', KEYS[2], ARGV[2], ARGV[3 + k]) end
i = 4 + n
while ARGV[i] do
  local old = redis.call('hget', KEYS[3], ARGV[i])
  if not old or tonumber(old) < tonumber(ARGV[i + 1]) then redis.call('hset', KEYS[3], ARGV[i], ARGV[i + 1]) end
  i = i + 2
end
return done
"""


class LeaseLost(RuntimeError):
    """Another process holds the lease now: what it protected is no longer ours; the message names both."""


class ReaderLease:
    """A lease under *key* for *token* (``client_id#random``); Redis checks it with each acknowledgement, so it needs no
    fencing number (`stream.lease` has one)."""

    def __init__(self, client: Any, key: str, token: str) -> None:
        self.client, self.key, self.token = client, key, token
        self._valid_until = 0.0

    @property
    def valid(self) -> bool:
        """Whether we still hold it, without asking the server."""
        return time.monotonic() < self._valid_until

    def acquire(self) -> bool:
        """Take it if it is free or already ours."""
        began = time.monotonic()
        taken = self.client.set(self.key, self.token, nx=True, px=TTL_MS)
        if not taken and not self.client.eval(RENEW, 1, self.key, self.token, TTL_MS):
            return False
        self._valid_until = began + TTL_MS / 1000
        return True

    def renew(self) -> bool:
        """Keep it; False when it is lost. A lease that ran out is lost, even if nobody took it."""
        began = time.monotonic()
        if began >= self._valid_until:
            return False
        if not self.client.eval(RENEW, 1, self.key, self.token, TTL_MS):
            self._valid_until = 0.0
            return False
        self._valid_until = began + TTL_MS / 1000
        return True

    def release(self) -> None:
        """Give it up, if it is still ours."""
        self._valid_until = 0.0
        self.client.eval(RELEASE, 1, self.key, self.token)

    def holder(self) -> str:
        """Client id of the holder, empty when there is none."""
        raw = self.client.get(self.key)
        return decoded(raw).partition("#")[0] if raw else ""

    def acknowledge(
        self, stream: str, group: str, ids: Sequence[str], progress_key: str, progress: Mapping[str, int]
    ) -> None:
        """Acknowledge *ids* and store *progress* (symbol → epoch s), or raise `LeaseLost` when another holds it."""
        pairs = list(progress.items())
        for start in range(0, max(len(ids), len(pairs)), _CHUNK):
            part, marks = ids[start : start + _CHUNK], pairs[start : start + _CHUNK]
            flat = [str(x) for pair in marks for x in pair]
            reply = self.client.eval(
                _ACKNOWLEDGE, 3, self.key, stream, progress_key, self.token, group, len(part), *part, *flat
            )
            if int(reply) < 0:
                self._valid_until = 0.0
                raise LeaseLost(f"{self.key} is held by {self.holder() or 'another'}, no longer by {self.token}")
