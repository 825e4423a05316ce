"""The subscriber: xtdata's whole-quote callback → checked Arrow batches → Redis, without a gap in (session, seq).

One thread does everything but the callbacks: it gathers for QMT_FEED_GATHER_MS or QMT_FEED_GATHER_ROWS, checks
(`feed.edge`), publishes or spools (`feed.outbox`), and in between looks after the subscription, the lease, the
heartbeat and the checkpoint. In a replay (and at simulated speed 0) batches form by rows alone, and it ends with the
last tick by printing its report.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from typing import Any, Final

import numpy as np
import redis

from qmt_orchestration.exit_codes import EXIT_LEASE_LOST, EXIT_UNEXPECTED
from qmt_orchestration.feed import checkpoint, universe, xt
from qmt_orchestration.feed.edge import Checked, Edge
from qmt_orchestration.feed.entries import Entries
from qmt_orchestration.feed.intake import Intake
from qmt_orchestration.feed.memory import Memory, number_day
from qmt_orchestration.feed.news import News
from qmt_orchestration.feed.outbox import Outbox
from qmt_orchestration.feed.spool import Spool, SpoolFull
from qmt_orchestration.feed.statistics import Statistics
from qmt_orchestration.feed.subscription import Subscription
from qmt_orchestration.market.quality import minute_of_day
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.clock import clear_clock, publish_clock
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration.stream.lease import Lease, process_owner
from qmt_orchestration.stream.producer import NewEntry, NotOwner, Producer

log = logging.getLogger("feed.subscriber")

LEASE: Final = "feed"
LEASE_TTL_MS: Final = 5000
_CHECKPOINT_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 2.0  # a feed that forms batches by rows alone pauses: what is there goes out
_REWIND_MS: Final = 60_000
_DAY_ENDS: Final = 931  # 15:31: no tick of the day comes any more that could decide


def run(settings: Settings, stop: threading.Event) -> int:
    """Run until *stop* is set or the recording has ended. 0; 70 the simulated market failed; 75 the lease was lost."""
    client = connect(settings, retries=0)
    lease = Lease(client, LEASE, process_owner(settings.host), LEASE_TTL_MS)
    spool = Spool(settings.data_dir / "feed" / "spool", settings.spool_max_mb)
    outbox = Outbox(Producer(client, lease=(LEASE, lease.owner)), spool, lease, settings.host)
    heartbeat = Heartbeat(client, settings, "subscriber")
    if not _stand_by(outbox, heartbeat, stop):
        return 0
    try:
        terminal = xt.load(settings)
        members = _load_universe(terminal, settings, outbox, heartbeat, stop)
        if members is None:
            return 0
        return Subscriber(settings, client, outbox, terminal, members, heartbeat).run(stop)
    except NotOwner as error:
        log.error("another subscriber works now, stopping: %s", error)
        return EXIT_LEASE_LOST
    finally:
        spool.close()
        try:
            lease.release()
        except redis.RedisError as error:
            log.warning("the lease was not released (%s): it runs out by itself", error)


def _stand_by(outbox: Outbox, heartbeat: Heartbeat, stop: threading.Event) -> bool:
    """Wait for the lease. True: it is ours, or Redis is away (then we spool and take it later); False: stopped."""
    announced = False
    while not stop.is_set():
        try:
            try:
                outbox.keep_lease()
                return True
            except NotOwner as error:
                if not announced:
                    log.info("standing by: %s", error)
                announced = True
                heartbeat.beat({"state": "standby"})
        except redis.RedisError as error:
            log.warning("Redis is away at the start (%s): spooling until it answers", error)
            return True
        stop.wait(0.5)
    return False


def _load_universe(
    terminal: xt.Terminal, settings: Settings, outbox: Outbox, heartbeat: Heartbeat, stop: threading.Event
) -> universe.Universe | None:
    """The universe, asked for until QMT gives it; None when stopped before.

    Meanwhile it beats and says why it waits: a QMT that is closed for the night is no subscriber that hangs. Raises
    `NotOwner`.
    """
    pause = 1.0
    while not stop.is_set():
        try:
            members = universe.load(terminal.xtdata, settings)
            kinds = zip(members.groups, np.bincount(members.group).tolist(), strict=True)
            log.info("universe: %d instruments (%s)", len(members.symbols), ", ".join(f"{n} {g}" for g, n in kinds))
            return members
        except Exception as error:  # xtquant raises bare Exception while QMT is not there
            log.error("no universe from QMT (%s): next attempt in %.0f s", error, pause)
            reason = f"no universe from QMT: {str(error)[:300]}"
        until = time.monotonic() + pause
        while time.monotonic() < until and not stop.is_set():
            try:
                outbox.keep_lease()
                heartbeat.beat({"mode": "waiting", "error": reason})
            except redis.RedisError as error:
                log.debug("no heartbeat while Redis is away: %s", error)
            stop.wait(1.0)
        pause = min(pause * 2, 30.0)
    return None


class Subscriber:
    """One run of the subscriber: the session."""

    def __init__(
        self,
        settings: Settings,
        client: Any,
        outbox: Outbox,
        terminal: xt.Terminal,
        members: universe.Universe,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self.settings, self.client, self.outbox, self.terminal = settings, client, outbox, terminal
        self.session = f"{settings.host}-{settings.feed}-{int(time.time() * 1000)}"
        self.replay = settings.feed == "replay"
        self.by_rows = (self.replay and settings.replay_speed == 0) or (
            settings.feed == "simulator" and settings.sim_speed == 0
        )
        self.gather_rows = min(settings.feed_gather_rows, settings.feed_queue_rows)
        self.memory = Memory(members, settings.feed_gap_seconds)
        self.edge = Edge(
            self.memory,
            by_first_tick=self.replay,
            confirmations=settings.feed_confirmations,
            ahead_ms=int(settings.feed_ahead_seconds * 1000),
        )
        self.intake = Intake(settings.feed_queue_rows)
        self.news = News(members, settings.sim_speed if settings.feed == "simulator" else 1.0)
        self.subscription = Subscription(terminal, settings, self.intake, self.memory, self.news)
        self.stats = Statistics(self.session, len(members.symbols))
        self.heartbeat = heartbeat or Heartbeat(client, settings, "subscriber")
        self.entries = Entries(self.session, settings, outbox.producer)
        self._stopping = False
        self._held: tuple[list[NewEntry], Checked] | None = None  # made, but neither Redis nor the disk takes it
        self._due = {"check": 0.0, "beat": 0.0, "log": time.monotonic() + settings.feed_stats_seconds, "save": 0.0}

    def run(self, stop: threading.Event) -> int:
        """Feed until stopped, or until the recording ends."""
        self._recall()
        self._due["save"] = time.monotonic() + _CHECKPOINT_SECONDS
        # Ticks hold no cycles, but hundreds of thousands of them alive would make every full collection long.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)
        log.info("session %s begins", self.session)
        try:
            while not stop.is_set():
                self._look_after()
                idle = self._step()
                if self.terminal.failed():
                    log.error("the simulated market failed: see the log above")
                    return EXIT_UNEXPECTED
                if idle and self.terminal.finished() and self._finish(stop):
                    return 0
            self._drain_queue()
        except NotOwner as error:
            log.error(
                "another subscriber works now, stopping: %s; %d entries stay spooled", error, len(self.outbox.spool)
            )
            return EXIT_LEASE_LOST
        finally:
            self.subscription.end()
            self.intake.close()
            self._save()
            self.heartbeat.stop()
        return 0

    # -- before -----------------------------------------------------------------------------------------------

    def _recall(self) -> None:
        """Take over ids and what an earlier run published of today."""
        streams = [keys.ticks(shard) for shard in range(self.settings.stream_shards)] + [keys.REJECTED]
        for entry in self.outbox.spool.all():
            self.outbox.producer.seen(entry.stream, entry.id)
        try:
            self.outbox.producer.learn(streams)
            if self.settings.feed == "xtquant":
                clear_clock(self.client)
        except redis.RedisError as error:
            log.warning("Redis does not tell its newest ids (%s): ids are settled when it is back", error)
        if self.replay:
            return
        now_ms = self.terminal.now_ms() if self.terminal.now_ms else int(time.time() * 1000)
        known = checkpoint.load(self.settings, from_ms(now_ms).date())
        entries = 0
        try:
            entries = checkpoint.read_tail(self.client, self.settings, known)
        except redis.RedisError as error:
            log.warning("the tail of the stream cannot be read (%s): going on from the checkpoint", error)
        checkpoint.read_spool(self.outbox.spool, self.settings, known)
        if known.covered_ms > now_ms + _REWIND_MS and self.settings.feed == "simulator":
            log.warning("the simulated market starts before what it published of %s: beginning from scratch", known.day)
            return
        if known.covered_ms:
            self.memory.restore(known.day, known.covered_ms, known.states, known.held, known.carry)
            log.info(
                "%s: %d symbols known up to %s, %d entries read after the checkpoint",
                known.day,
                len(known.states),
                from_ms(known.covered_ms).strftime("%H:%M:%S"),
                entries,
            )

    # -- the loop ---------------------------------------------------------------------------------------------

    def _step(self) -> bool:
        """Gather, check, publish once. True: there was nothing to do."""
        if self.outbox.spool or self.outbox.away_since:
            self.outbox.drain()
        if self._held is not None:
            self._hand_over(*self._held)
            if self._held is not None:
                time.sleep(0.1)
                return False
        flush = not self.by_rows or self._stopping or self.terminal.finished() or self._idle_for() > _IDLE_SECONDS
        wait = self.settings.feed_gather_ms / 1000
        if self.by_rows:
            wait = 0.0 if flush and self.intake.rows else 0.05
        items = self.intake.take(self.gather_rows, wait_seconds=wait, flush=flush)
        if not items:
            return self.intake.rows == 0
        now_ms = self.subscription.market_now_ms()
        outcome = self.edge.process(items, now_ms)
        self.stats.take(outcome)
        self.news.take(outcome.table, outcome.ids, now_ms)
        if outcome.gap:
            self._save(gap=True)  # before anything is published: a crash must not forget who needs a baseline
        self._hand_over(self.entries.of(outcome, self.memory.universe), outcome)
        if outcome.settled:
            self._due["save"] = min(self._due["save"], time.monotonic() + 1.0)  # it must survive a crash
        if outcome.new_day and not self.replay:
            self._new_day()
        return False

    def _settle(self) -> None:
        """Decide about ticks that are held, without waiting for others of their symbols."""
        if self.memory.held and self._held is None:
            outcome = self.edge.flush()
            self.stats.take(outcome)
            self._hand_over(self.entries.of(outcome, self.memory.universe), outcome)
            self._save()

    def _idle_for(self) -> float:
        return time.monotonic() - self.intake.last_monotonic

    def _hand_over(self, entries: list[NewEntry], outcome: Checked) -> None:
        """Publish or spool *entries*; hold them when neither is possible (the queue then fills and callbacks wait)."""
        try:
            if entries:
                self.outbox.put(entries)
        except SpoolFull as error:
            if self._held is None:
                log.error("%s", error)
            self._held = (entries, outcome)
            return
        self._held = None
        ticks = sum(1 for entry in entries if entry.stream != keys.REJECTED)
        self.stats.sent(outcome, ticks, int(time.time() * 1000), self.subscription.market_now_ms())

    def _new_day(self) -> None:
        """A trading day has begun: listings and limits of the new day."""
        log.info("trading day %s begins", number_day(self.memory.day))
        try:
            members = universe.load(self.terminal.xtdata, self.settings)
        except Exception as error:  # xtquant raises bare Exception
            log.error("the universe stays that of the day before: %s", error)
            return
        self.memory.set_universe(members)
        self.news.set_universe(members)
        self.stats.seen = np.zeros(len(members.symbols), np.bool_)

    # -- beside it --------------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        now = time.monotonic()
        if now >= self._due["check"]:
            self._due["check"] = now + 0.25
            self.subscription.check()
            if not self.outbox.away_since:
                try:
                    self.outbox.keep_lease()
                except redis.RedisError as error:
                    log.warning("the lease cannot be renewed: %s", error)
        if now >= self._due["beat"]:
            self._due["beat"] = now + 1.0
            self._beat()
        if now >= self._due["save"]:
            self._due["save"] = now + _CHECKPOINT_SECONDS
            self._save()
            now_ms = self.subscription.market_now_ms()
            if self.memory.held and now_ms and minute_of_day(np.array([now_ms]))[0] >= _DAY_ENDS:
                self._settle()
        if now >= self._due["log"]:
            self._due["log"] = now + self.settings.feed_stats_seconds
            self._log()

    def _numbers(self) -> dict[str, float | int | str]:
        return self.stats.numbers(
            callbacks=self.intake.callbacks,
            callback_errors=self.intake.errors,
            blocked=self.intake.blocked,
            stale_callbacks=self.intake.stale,
            buffer=self.intake.rows,
            spool_entries=len(self.outbox.spool),
            spool_rows=self.outbox.spool.rows,
            torn_records=self.outbox.spool.torn,
            mode=self.subscription.mode,
            left_out=self.subscription.left_out,
            subscriptions=self.subscription.subscriptions,
            repeats=self.outbox.producer.repeats,
            universe=len(self.memory.universe.symbols),
            held=sum(map(len, self.memory.held.values())),
            overturned=self.edge.doubts.overturned,
            news=self.news.text(now_ms) if (now_ms := self.subscription.market_now_ms()) else "",
        )

    def _beat(self) -> None:
        if self.outbox.away_since and not self.outbox.refused:
            return  # each attempt would wait for an answer
        try:
            clock = self.terminal.clock()
            if clock and self.settings.feed == "simulator" and not self.settings.sim_clock_in_redis:
                publish_clock(self.client, *clock)
            self.heartbeat.beat(self._numbers())
        except redis.RedisError as error:
            log.warning("no heartbeat: %s", error)

    def _log(self) -> None:
        numbers = self._numbers()
        shown = {name: value for name, value in numbers.items() if name not in ("session", "news")}
        log.info("statistics: %s", " ".join(f"{name}={value}" for name, value in shown.items()))
        if self.stats.filtered:
            top = ", ".join(f"{prefix} {count}" for prefix, count in self.stats.filtered.most_common(5))
            log.info("outside the universe, by prefix: %s", top)
        if self.settings.feed == "xtquant" and (warning := self.stats.clock_warning()):
            log.warning(warning)
        self.stats.new_window()

    def _save(self, *, gap: bool = False) -> None:
        """Checkpoint on disk."""
        if self.replay or not self.memory.day or self._held is not None:
            return  # what is held is in the memory, but neither in Redis nor on disk
        try:
            checkpoint.save(self.settings, self.memory, self.outbox.producer.confirmed(), gap=gap)
        except OSError as error:
            log.error("the checkpoint cannot be written to %s: %s", checkpoint.path_of(self.settings), error)

    # -- the end ----------------------------------------------------------------------------------------------

    def _drain_queue(self) -> None:
        """Stopped: publish what has come in, for a few seconds at most."""
        self._stopping = True
        self.subscription.end()
        self.intake.close()
        deadline = time.monotonic() + 5.0
        while self.intake.rows and self._held is None and time.monotonic() < deadline:
            self._step()

    def _finish(self, stop: threading.Event) -> bool:
        """The last tick was pushed and processed: wait until all is in Redis, then report."""
        self._settle()
        while (self.outbox.spool or self._held is not None) and not stop.is_set():
            self._look_after()
            self._step()
            stop.wait(0.05)
        if self.intake.rows or stop.is_set():
            return False
        self._beat()
        self._log()
        os.write(1, (self.stats.report() + "\n").encode())
        return True
