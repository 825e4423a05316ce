"""The simulated ``xtquant.datacenter``, in place of the compiled half of xtquant that exists for Windows only.

It answers what the Python half of xtquant 250807 calls (``xtdata.py``, ``xtconn.py``, ``xtdatacenter.py``), in the
formats of the compiled one: BSON for requests and instrument details, JSON for full ticks, raw buffers ("v4") for bars.
Nothing of xtquant is imported here; its BSON codec is taken from ``sys.modules`` when a call comes in through it.
"""

from __future__ import annotations

import json
import sys
import threading
import types
from collections.abc import Callable
from datetime import date
from typing import Any, Final

import numpy as np

from qmt_orchestration.market.calendar import closed_weekdays, trading_days
from qmt_orchestration.market.instruments import Kind, instrument_of
from qmt_orchestration.market.sessions import at, from_ms, to_ms
from qmt_orchestration.simulator import market_data
from qmt_orchestration.simulator.engine import Callback, Simulation
from qmt_orchestration.simulator.history import FIELDS, PERIODS
from qmt_orchestration.simulator.reference import dividends, instrument
from qmt_orchestration.simulator.replay import ReplaySource
from qmt_orchestration.simulator.universe import sectors

_TYPES: Final = {"fund": Kind.FUND, "index": Kind.INDEX, "bond": Kind.CONVERTIBLE}
PORT: Final = 58609  # only a name: nothing listens, connections stay inside the process


def _bson() -> Any:
    codec = sys.modules.get("xtquant.xtbson")
    if codec is None:
        raise RuntimeError("the simulator answers calls of xtquant's Python half only, which is not imported")
    return codec


def _encode(document: dict[str, Any]) -> bytes:
    return bytes(_bson().BSON.encode(document))


def _decode(data: bytes) -> dict[str, Any]:
    return dict(_bson().BSON.decode(data)) if data else {}


def build_module(simulation: Simulation) -> types.ModuleType:
    """The module to put into ``sys.modules["xtquant.datacenter"]``."""

    class IPythonApiClient(Client):
        """A connection to this process's simulated terminal."""

        def __init__(self) -> None:
            super().__init__(simulation)

    module = types.ModuleType("xtquant.datacenter", __doc__)
    members: dict[str, Any] = {
        "rpc_init": lambda config_dir: 0,
        "get_local_server_port": lambda: PORT,
        "register_create_nparray": lambda function: None,
        "IPythonApiClient": IPythonApiClient,
    }
    for name, value in members.items():
        setattr(module, name, value)
    return module


class Client:
    """What xtdata calls its client; method names and signatures are those of the compiled class."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._generation: int | None = None
        self._addr = f"127.0.0.1:{PORT}"
        self._watchers: dict[str, Callback] = {}
        self._numbers: set[int] = set()

    # -- connection -----------------------------------------------------------------------------------------

    def init(self) -> None:
        """Nothing to prepare."""

    def load_config(self, path: str, section: str) -> int:
        """Accepts any configuration."""
        return 0

    def set_config_addr(self, addr: str) -> None:
        """Remembered for `get_peer_addr`."""
        self._addr = addr

    def registerCommonControlCallback(self, name: str, callback: Callback) -> None:
        """``watchxtquantstatus``: called when the connection comes and goes."""
        self._watchers[name] = callback

    def connect(self) -> tuple[int, str]:
        """(0, "") or (-1, reason)."""
        self._generation = self._sim.connect()
        if self._generation is None:
            return -1, "simulated terminal: the connection is down (planted fault drop-connection)"
        self._notify("connected")
        return 0, ""

    def is_connected(self) -> bool:
        """Whether this connection stands; the watcher is called when it is found broken."""
        alive = self._generation is not None and self._sim.alive(self._generation)
        if not alive and self._generation is not None:
            self._generation = None
            self._notify("disconnected")
        return alive

    def shutdown(self) -> None:
        """End this connection and its subscriptions."""
        for number in list(self._numbers):
            self._sim.unsubscribe(number)
        self._numbers.clear()
        if self._generation is not None:
            self._generation = None
            self._notify("disconnected")

    def _notify(self, status: str) -> None:
        watcher = self._watchers.get("watchxtquantstatus")
        if watcher:
            watcher({"address": self._addr, "status": status})

    def get_data_dir(self) -> str:
        """Where a terminal would keep its files; nothing is written there."""
        return "simulated/datadir"

    def get_app_dir(self) -> str:
        """See `get_data_dir`."""
        return "simulated"

    def get_peer_addr(self) -> str:
        """Address that was connected to."""
        return self._addr

    def get_server_tag(self) -> bytes:
        """BSON: what runs at the other end."""
        return _encode({"tag": "replay" if self._sim.replay else "simulator", "version": "1.0"})

    def commonControl(self, function: str, request: bytes) -> bytes:
        """Requests by name; unknown ones get an empty document."""
        handlers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "getapiversion": lambda _: {"downloadversion": 1},
            "getfullkline": self._full_kline,
            "downloadholidaydata": lambda _: {"result": True},
            "getperiodlist": lambda _: {"result": [{"name": period} for period in PERIODS]},
            "getauthorizedmarketlist": lambda _: {"result": ["SH", "SZ", "BJ"]},
            "getwpmarketlist": lambda _: {"result": ["SH", "SZ", "BJ"]},
        }
        handler = handlers.get(function)
        return _encode(handler(_decode(request)) if handler else {})

    # -- quotes ---------------------------------------------------------------------------------------------

    def subscribe_whole_quote(self, codes: list[str], param: bytes, callback: Callback | None) -> int:
        """A number > 0 or -1; the first push is the full snapshot."""
        return self._subscribe(list(codes), "whole", callback)

    def subscribe_quote(self, meta: bytes, region: bytes, param: bytes, callback: Callback | None) -> int:
        """Periods tick and 1m, at most 500 at a time, else -1."""
        about = _decode(meta)
        return self._subscribe([about["stockCode"]], about["period"], callback)

    def _subscribe(self, codes: list[str], period: str, callback: Callback | None) -> int:
        if not self.is_connected():
            return -1
        number = self._sim.subscribe(codes, period, callback or (lambda _: None))
        if number > 0:
            self._numbers.add(number)
        return number

    def unsubscribe_quote(self, number: int) -> bool:
        """False if there is no such subscription."""
        self._numbers.discard(number)
        return self._sim.unsubscribe(number)

    def get_full_tick(self, codes: list[str]) -> str:
        """JSON ``{symbol: tick}`` at this moment, with ``timetag`` as text."""
        ticks = self._sim.full_tick(codes)
        for tick in ticks.values():
            tick["timetag"] = from_ms(tick["time"]).strftime("%Y%m%d %H:%M:%S")
        return json.dumps(ticks)

    # -- reference data -------------------------------------------------------------------------------------

    def get_sector_list(self) -> list[str]:
        """Names of the sectors."""
        return list(sectors(self._sim.source.members, self._today()))

    def get_stock_list_in_sector(self, name: str, timetag: int = -1) -> list[str]:
        """Members of a sector on the day of *timetag* (epoch ms, -1 = today); empty for an unknown one."""
        day = from_ms(timetag).date() if timetag > 0 else self._today()
        return list(sectors(self._sim.source.members, day).get(name, ()))

    def get_instrument_detail(self, symbol: str) -> bytes:
        """BSON of the instrument today, empty for an unknown symbol."""
        source = self._sim.source
        if symbol not in self._sim.known:
            return b""
        closes = source.previous_closes if isinstance(source, ReplaySource) else None
        return _encode(instrument(self._sim.settings.sim_seed, self._today(), symbol, closes))

    def get_stock_type(self, symbol: str) -> dict[str, bool]:
        """Which kind of instrument it is."""
        kind = instrument_of(symbol).kind
        known = {name: kind is wanted for name, wanted in _TYPES.items()}
        return {**known, "stock": kind is Kind.STOCK}

    def get_divid_factors(self, symbol: str, start: str = "", end: str = "") -> dict[str, dict[str, float]]:
        """``{"20250605": {time, interest, stockBonus, …, dr}}``, one entry per ex-date."""
        if self._sim.replay:
            return {}
        return dividends(self._sim.settings.sim_seed, symbol, start, end, self._today())

    def get_trading_dates_by_market(self, market: str, start: str = "", end: str = "", count: int = -1) -> list[int]:
        """Midnights (epoch ms, Shanghai) of the trading days in [start, end], up to today."""
        if market not in ("SH", "SZ", "BJ"):
            return []
        first = _date(start) or date(2005, 1, 4)
        days = trading_days(first, min(_date(end) or self._today(), self._today()))
        days = days[max(0, len(days) - count) :] if count >= 0 else days
        return [to_ms(at(day, 0)) for day in days]

    def get_holidays(self) -> list[int]:
        """Weekdays without trading, YYYYMMDD, as far as the calendar knows."""
        return [int(f"{day:%Y%m%d}") for day in closed_weekdays(date(2015, 1, 1))]

    def get_market_last_trade_date(self, market: str) -> int:
        """Midnight of the last trading day up to today, epoch ms; -1 for an unknown market."""
        days = self.get_trading_dates_by_market(market, count=1)
        return days[-1] if days else -1

    def _today(self) -> date:
        return from_ms(self._sim.now_ms()).date()

    # -- history --------------------------------------------------------------------------------------------

    def supply_history_data(self, symbol: str, period: str, start: str, end: str) -> None:
        """Download one symbol, at once."""
        self._sim.history.download(symbol, period, start, end, self._sim.now_ms())

    def supply_history_data2(
        self, symbols: list[str], period: str, start: str, end: str, param: bytes, on_progress: Callback
    ) -> bool:
        """Start a download; ``on_progress({finished, total, stockcode, message})`` comes from another thread."""

        def work() -> None:
            for done, symbol in enumerate(symbols, 1):
                if not self.is_connected():
                    return
                try:
                    self.supply_history_data(symbol, period, start, end)
                except ValueError as error:
                    on_progress({"finished": 0, "total": -1, "stockcode": symbol, "message": str(error)})
                    return
                if on_progress({"finished": done, "total": len(symbols), "stockcode": symbol, "message": ""}):
                    return

        if not symbols:
            on_progress({"finished": 0, "total": 0, "stockcode": "", "message": ""})
        else:
            threading.Thread(target=work, name="simulated-download", daemon=True).start()
        return False

    def stop_supply_history_data2(self) -> None:
        """Downloads are short; nothing to stop."""

    def get_market_data3(
        self,
        fields: list[str],
        symbols: list[str],
        period: str,
        start: str | int,
        end: str | int,
        count: int,
        dividend_type: str,
        fill: bool,
        version: str,
        *local: Any,
    ) -> Any:
        """What the Python half of xtdata asks for, in the format of its *version*.

        v4: bars as ``[(symbol, labels, [(field, dtype, bytes), …]), …]``; v2: ``((symbols, labels), {field: table})``;
        v2 and v3 of period tick: ``{symbol: record array}``.
        """
        known = [] if self._sim.replay else [s for s in symbols if s in self._sim.known]
        now = self._sim.now_ms()
        if period == "tick":
            return market_data.ticks(self._sim.settings, self._sim.history, known, start, end, count, now)
        if version not in ("v2", "v4"):
            raise NotImplementedError(f"the simulator gives bars in the formats v2 and v4, asked for {version}")
        wanted = list(dict.fromkeys(name for name in fields if name in FIELDS)) or list(FIELDS)
        raw = self._sim.history.bars(known, period, start, end, count, now_ms=now, fill=fill)
        bars = list(market_data.adjusted(raw, dividend_type, self._sim.settings.sim_seed, self._today()))
        bars += [(s, [], {name: np.zeros(0, FIELDS[name]) for name in FIELDS}) for s in symbols if s not in known]
        if version == "v2":
            return market_data.aligned(bars, wanted, fill)
        return [
            (symbol, labels, [(name, FIELDS[name], columns[name].astype(FIELDS[name]).tobytes()) for name in wanted])
            for symbol, labels, columns in bars
        ]

    def _full_kline(self, request: dict[str, Any]) -> dict[str, Any]:
        """Today's bars of all asked symbols on one time axis: ``{result: {field: rows}, stock, stime}``."""
        symbols = [s for s in request["stocklist"] if s in self._sim.known and not self._sim.replay]
        now, count = self._sim.now_ms(), int(request.get("count", 1))
        midnight = to_ms(at(self._today(), 0))
        bars = list(
            self._sim.history.bars(
                symbols, request["period"], midnight, now, count, now_ms=now, fill=True, everything=True
            )
        )
        axis = bars[0][1] if bars else []
        names = [name for name in FIELDS if not request.get("fields") or name in request["fields"]]
        result = {name: [columns[name].tolist() for _, _, columns in bars] for name in names}
        return {"result": result, "stock": symbols, "stime": axis}


def _date(text: str) -> date | None:
    """The date of ``YYYYMMDD…``; None if empty."""
    return date(int(text[:4]), int(text[4:6]), int(text[6:8])) if text else None
