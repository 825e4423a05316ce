"""A fenced lease: at most one owner works, and a later owner has a higher token.

The lease is a Redis string that expires (`keys.LEASE`); each new ownership draws the next number of a counter
(`keys.FENCE`). Whoever writes something that an earlier owner must not overwrite sends its `token` along.
`valid` is the local and cheap answer: it turns false by the monotonic clock when renewals have failed for longer than
the lease lasts, so a process that was stopped and wakes up again knows it at once. (redis-py's Lock has no fencing
number, and its owner cannot be found dead by host and pid.)
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

import psutil

from qmt_orchestration.stream import keys
from qmt_orchestration.stream.fields import decoded

# One script each: no crash can fall between the steps. Taking what one already holds (a lost reply) is a renewal. What
# does not expire is no lease of ours and holds nobody back; a counter that is no number begins again at ARGV[4], far
# above every token ever drawn.
_ACQUIRE: Final = """
local holder = redis.call('get', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] and redis.call('pttl', KEYS[1]) >= 0 then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2])
local fence = redis.call('get', KEYS[2]) or '0'
if #fence > 15 or not string.match(fence, '^%d+$') then redis.call('set', KEYS[2], ARGV[4]) end
if holder == ARGV[1] then return tonumber(redis.call('get', KEYS[2])) end
return redis.call('incr', KEYS[2])
"""
RENEW: Final = (
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"
)
RELEASE: Final = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


def process_owner(host: str) -> str:
    """An owner name for this process: ``<host>|<pid>|<start of the process, epoch ms>``."""
    return f"{host}|{os.getpid()}|{int(psutil.Process().create_time() * 1000)}"


def owner_is_dead(owner: str, host: str) -> bool:
    """Whether *owner* (of `process_owner`) was a process of this *host* that no longer exists."""
    parts = owner.split("|")
    if len(parts) != 3 or parts[0] != host:
        return False
    try:
        process = psutil.Process(int(parts[1]))
        another = abs(process.create_time() * 1000 - int(parts[2])) > 1000
        return bool(another or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, ValueError):
        return False


class Lease:
    """A lease called *name*, for *owner* (unique per process, see `process_owner`), lasting *ttl_ms* per renewal.

    Renew it at least every third of its time. Redis errors pass through: the caller knows whether it may go on.
    """

    def __init__(self, client: Any, name: str, owner: str, ttl_ms: int = 5000) -> None:
        self.client, self.name, self.owner, self.ttl_ms = client, name, owner, ttl_ms
        self.token = 0  #: fencing token of the present ownership; 0 = not held
        self._key, self._fence = keys.LEASE.format(name=name), keys.FENCE.format(name=name)
        self._until = 0.0

    @property
    def valid(self) -> bool:
        """Whether the last renewal still covers now, by this process's monotonic clock."""
        return self.token > 0 and time.monotonic() < self._until

    def acquire(self, *, instead_of: str = "") -> bool:
        """Take the lease if it is free, ours, or held by *instead_of* (an owner known to be dead)."""
        begun = time.monotonic()
        arguments = (self.owner, self.ttl_ms, instead_of, int(time.time()))
        token = int(self.client.eval(_ACQUIRE, 2, self._key, self._fence, *arguments))
        if token:
            self.token, self._until = token, begun + self.ttl_ms / 1000
        return bool(token)

    def renew(self) -> bool:
        """Extend the lease. False: it is lost (expired or taken) and ``token`` is 0 again."""
        begun = time.monotonic()
        if self.client.eval(RENEW, 1, self._key, self.owner, self.ttl_ms):
            self._until = begun + self.ttl_ms / 1000
            return True
        self.token = 0
        return False

    def release(self) -> None:
        """Give the lease up; nothing happens when it is no longer ours."""
        if self.token:
            self.client.eval(RELEASE, 1, self._key, self.owner)
            self.token = 0

    def holder(self) -> str:
        """Who holds it now, "" for nobody."""
        value = self.client.get(self._key)
        return decoded(value) if value else ""
