"""The gateway: answers requests for history and reference data out of QMT, over Redis (`stream.rpc`).

It runs in a process of its own beside QMT, so that a history that hangs never holds up the feed. A request that was
under way when the gateway died is served again from its start.

| method | params | columns |
| --- | --- | --- |
| history | symbols, period, start, end (YYYYMMDD) | `BAR_SCHEMA`; rows that are no bars left out and counted |
| instruments | day (optional) | `INSTRUMENT_SCHEMA`, the symbols of the feed |
| calendar | start, end | day |
| full_tick | symbols | symbol and xtdata's tick fields, time as timestamp(ms) |
| adjust_factors | symbols, start, end (optional) | symbol, ex_date, interest, stock_bonus, … allot_price, dr |
| sector_members | sectors, day | sector, symbol; one row without a symbol for a sector that is empty or unknown |
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import redis

from qmt_orchestration.feed import kinds, universe, xt
from qmt_orchestration.feed.history import History, Progress
from qmt_orchestration.feed.payload import to_columns
from qmt_orchestration.market.instruments import instrument_of
from qmt_orchestration.market.schema import BAR_SCHEMA, TICK_SCHEMA
from qmt_orchestration.market.sessions import from_ms
from qmt_orchestration.market.symbols import is_symbol
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import threads
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration.stream.rpc import Call
from qmt_orchestration.stream.rpc_server import RpcServer

log = logging.getLogger("feed.gateway")

_NUMBERS: Final = (
    "PriceTick",
    "InstrumentStatus",
    "PreClose",
    "UpStopPrice",
    "DownStopPrice",
    "FloatVolume",
    "FloatVolumn",
    "TotalVolume",
    "TotalVolumn",
)
_FACTORS: Final = {
    "interest": "interest",
    "stockBonus": "stock_bonus",
    "stockGift": "stock_gift",
    "allotNum": "allot_num",
    "allotPrice": "allot_price",
    "dr": "dr",
}
INSTRUMENT_SCHEMA: Final = pa.schema(
    [
        ("day", pa.date32()),
        ("symbol", pa.string()),
        ("kind", pa.string()),  # `market.instruments.Kind`
        ("exchange", pa.string()),
        ("board", pa.string()),
        ("name", pa.string()),
        ("lot_size", pa.uint32()),  # units per 手
        ("price_tick", pa.float64()),
        ("decimals", pa.uint8()),
        ("listed", pa.uint8()),
        ("open_date", pa.date32()),  # null = unknown
        ("expire_date", pa.date32()),  # null = none, or unknown
        ("pre_close", pa.float64()),
        ("up_stop", pa.float64()),  # 0 = unknown, or no limit
        ("down_stop", pa.float64()),
        ("float_volume", pa.float64()),  # units; null = unknown
        ("issued_volume", pa.float64()),
        ("suspended", pa.uint8()),
        ("suspended_days", pa.uint32()),  # null = unknown
        ("source", pa.string()),  # QMT_FEED
        ("kind_doubt", pa.string()),  # `kinds.doubts`
    ]
)
FACTOR_SCHEMA: Final = pa.schema(
    [("symbol", pa.string()), ("ex_date", pa.date32()), *((name, pa.float64()) for name in _FACTORS.values())]
)


MEMBER_SCHEMA: Final = pa.schema([("sector", pa.string()), ("symbol", pa.string())])


class BadRequest(ValueError):
    """A parameter is missing or wrong; the message names it."""


def run(settings: Settings, stop: threading.Event) -> int:
    """Serve until *stop* is set."""
    gateway = Gateway(settings, xt.load(settings))
    client = connect(settings)
    server = RpcServer(client, settings, gateway.handlers())
    beats = threading.Thread(target=_beat, args=(settings, server, gateway, stop), name="heartbeat", daemon=True)
    beats.start()
    log.info("the gateway serves %s", ", ".join(gateway.handlers()))
    server.serve(stop)
    beats.join(5)
    return 0


def _beat(settings: Settings, server: RpcServer, gateway: Gateway, stop: threading.Event) -> None:
    heartbeat = Heartbeat(connect(settings, retries=0), settings, "gateway")

    def step() -> None:
        try:
            heartbeat.beat(
                {
                    "served": server.served,
                    "failed": server.failed,
                    "refused": server.refused,
                    "busy": server.busy,
                    "given_up": gateway.history.given_up,
                    "padding": gateway.padding,
                    "rejected": sum(gateway.rejected.values()),
                    **{f"rejected_{reason}": count for reason, count in gateway.rejected.items()},
                }
            )
        except redis.RedisError as error:
            log.warning("no heartbeat: %s", error)

    threads.repeat(step, stop, 1.0)
    heartbeat.stop()


class Gateway:
    """The handlers, over one terminal."""

    def __init__(self, settings: Settings, terminal: xt.Terminal) -> None:
        self.settings, self.terminal, self.xtdata = settings, terminal, terminal.xtdata
        self.history = History(terminal.xtdata)
        self.padding = 0  #: padding rows left out so far
        self.rejected: Counter[str] = Counter()  #: rows of history that are no bars, by reason

    def handlers(self) -> dict[str, Any]:
        """Method name → handler."""
        return {
            "history": self.get_history,
            "instruments": self.get_instruments,
            "calendar": self.get_calendar,
            "full_tick": self.get_full_tick,
            "adjust_factors": self.get_adjust_factors,
            "sector_members": self.get_sector_members,
        }

    def get_history(self, call: Call) -> Iterable[pa.Table]:
        """QMT's own bars; progress ``{symbols, total, rows, padding, rejected}`` after each chunk of symbols."""
        symbols, period = _symbols(call), _text(call, "period")
        if not symbols:
            yield BAR_SCHEMA.empty_table()
            return
        padded, before = 0, Counter[str]()

        def report(progress: Progress) -> None:
            nonlocal padded, before
            self.padding += progress.padding - padded
            self.rejected.update(Counter(progress.rejected) - before)
            padded, before = progress.padding, Counter(progress.rejected)
            call.progress(**asdict(progress))

        yield from self.history.fetch(
            symbols, period, _text(call, "start"), _text(call, "end"), remaining=call.remaining_seconds, report=report
        )

    def get_instruments(self, call: Call) -> pa.Table:
        """The universe with its details. QMT knows today's only; a simulated market knows every day's."""
        today = from_ms(self._now_ms()).date()
        day = _day(call) if call.params.get("day") else today
        if day != today and self.settings.feed != "simulator":
            raise BadRequest(f"day: QMT knows the instruments of today, {today}, only; asked for {day}")
        known = universe.load(self.xtdata, self.settings, lambda done, total: call.progress(symbols=done, total=total))
        details = known.details
        if day != today:
            from qmt_orchestration.simulator.reference import instrument

            details = {symbol: instrument(self.settings.sim_seed, day, symbol, None) for symbol in details}
        against = {} if self.settings.feed == "replay" else kinds.doubts(self.xtdata, details)
        rows = [
            {**_instrument(day, symbol, detail, self.settings.feed), "kind_doubt": against.get(symbol, "")}
            for symbol, detail in details.items()
        ]
        return pa.Table.from_pylist(rows, schema=INSTRUMENT_SCHEMA)

    def get_calendar(self, call: Call) -> pa.Table:
        """Trading days in [start, end] as QMT knows them (up to today)."""
        stamps = self.xtdata.get_trading_dates("SH", _text(call, "start"), _text(call, "end"))
        return pa.table({"day": pa.array([from_ms(int(ms)).date() for ms in stamps], pa.date32())})

    def get_full_tick(self, call: Call) -> pa.Table:
        """The last tick of each symbol; ticks that cannot be read are left out with a warning."""
        ticks = self.xtdata.get_full_tick(_symbols(call)) or {}
        symbols = list(ticks)
        columns, kept, failed = to_columns(list(ticks.values()))
        for position, error in failed:
            log.warning("full_tick: %s left out, %s: %s", symbols[position], error.reason.value, error.detail)
        out = {"symbol": pa.array([symbols[k] for k in kept], pa.string()), **columns}
        out["time"] = columns["time"].cast(TICK_SCHEMA.field("time").type)
        return pa.table(out)

    def get_adjust_factors(self, call: Call) -> Iterable[pa.Table]:
        """Dated dividend factors, by symbol and ex-date."""
        symbols = _symbols(call)
        start, end = str(call.params.get("start", "")), str(call.params.get("end", ""))
        for at in range(0, max(len(symbols), 1), 500):
            rows = []
            for symbol in symbols[at : at + 500]:
                frame = self.xtdata.get_divid_factors(symbol, start, end)
                for label, row in zip(frame.index.tolist(), frame.to_numpy().tolist(), strict=True):
                    ex_date, values = universe.date_of(label), dict(zip(frame.columns, row, strict=True))
                    factors = {ours: float(values.get(theirs) or 0.0) for theirs, ours in _FACTORS.items()}
                    if ex_date is None or not all(map(math.isfinite, factors.values())) or factors["dr"] <= 0:
                        self.rejected["factor"] += 1
                        log.warning("dividend factors of %s %s are no numbers, left out: %s", symbol, label, factors)
                        continue
                    rows.append({"symbol": symbol, "ex_date": ex_date, **factors})
            call.progress(symbols=min(at + 500, len(symbols)), total=len(symbols))
            yield pa.Table.from_pylist(rows, schema=FACTOR_SCHEMA)

    def get_sector_members(self, call: Call) -> pa.Table:
        """Members of sectors on a day, as QMT knows them; a sector that fails is logged and the others go on."""
        sectors, day = call.params.get("sectors"), _day(call)
        if not isinstance(sectors, list) or not all(isinstance(sector, str) for sector in sectors):
            raise BadRequest(f"sectors: expected a list like ['沪深300'], found {sectors!r:.100}")
        today = from_ms(self._now_ms()).date()
        found: list[tuple[str, str | None]] = []
        for n, sector in enumerate(sectors, 1):
            members = universe.members_of(self.xtdata, sector, -1 if day == today else f"{day:%Y%m%d}")
            known = sorted({symbol for symbol in members if isinstance(symbol, str) and is_symbol(symbol)})
            found += [(sector, symbol) for symbol in known] or [(sector, None)]
            call.progress(sectors=n, total=len(sectors))
        names, symbols = zip(*found, strict=True) if found else ((), ())
        return pa.table([pa.array(names, pa.string()), pa.array(symbols, pa.string())], schema=MEMBER_SCHEMA)

    def _now_ms(self) -> int:
        return self.terminal.now_ms() if self.terminal.now_ms else int(time.time() * 1000)


def _instrument(day: date, symbol: str, detail: dict[str, Any], source: str) -> dict[str, Any]:
    """A row of INSTRUMENT_SCHEMA. ``IsTrading`` is not read: it is False for symbols that trade."""
    about, known = instrument_of(symbol), {name: universe.number(detail.get(name)) for name in _NUMBERS}
    opened, expires = universe.date_of(detail.get("OpenDate")), universe.date_of(detail.get("ExpireDate"))
    tick = known["PriceTick"] or 0.0
    given = 0 < tick < 10
    # xtdata.md: InstrumentStatus <= 0 trades, 1 and above is the number of days suspended
    days = known["InstrumentStatus"]
    return {
        "day": day,
        "symbol": symbol,
        "kind": about.kind.value,
        "exchange": about.exchange,
        "board": about.board,
        "name": str(detail.get("InstrumentName") or ""),
        "lot_size": about.lot_size,
        "price_tick": tick if given else about.price_tick,
        "decimals": -int(Decimal(str(tick)).normalize().as_tuple().exponent) if given and tick < 1 else about.decimals,
        "listed": int((opened is None or opened <= day) and (expires is None or expires >= day)),
        "open_date": opened,
        "expire_date": expires,
        "pre_close": known["PreClose"] or 0.0,
        "up_stop": known["UpStopPrice"] or 0.0,
        "down_stop": known["DownStopPrice"] or 0.0,
        # old builds spell the names without their last letter
        "float_volume": known["FloatVolume"] if known["FloatVolume"] is not None else known["FloatVolumn"],
        "issued_volume": known["TotalVolume"] if known["TotalVolume"] is not None else known["TotalVolumn"],
        "suspended": int((days or 0) > 0),
        "suspended_days": None if days is None else max(int(days), 0),
        "source": source,
    }


def _symbols(call: Call) -> list[str]:
    symbols = call.params.get("symbols")
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise BadRequest(f"symbols: expected a list like ['000001.SZ'], found {symbols!r:.100}")
    return symbols


def _text(call: Call, name: str) -> str:
    value = call.params.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{name}: expected text, found {value!r:.100}")
    return value.replace("-", "")


def _day(call: Call) -> date:
    value = call.params.get("day")
    try:
        return date.fromisoformat(str(value))
    except ValueError as error:
        raise BadRequest(f"day: expected like 2025-06-05, found {value!r:.100}") from error
