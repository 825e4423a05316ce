"""Every setting of the system, once, typed, read from the environment (prefix ``QMT_``).

Units are in the names (``_ms``, ``_seconds``, ``_rows``). Secrets are ``SecretStr``: they come from the
environment or from the file named by ``QMT_ENV_FILE`` and are never printed, logged or stored.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Collection
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from qmt_orchestration.market import calendar

_MAIN_INDICES = (
    "000001.SH",
    "000016.SH",
    "000300.SH",
    "000688.SH",
    "000852.SH",
    "000905.SH",
    "399001.SZ",
    "399006.SZ",
    "899050.BJ",
)

_FIRST_DAY: Final = "first_day"  # in data_dir: the earliest day that was made, where it lies before the default


class Settings(BaseSettings):
    """All settings. ``Settings()`` reads the environment; keyword arguments win over it (used by tests)."""

    model_config = SettingsConfigDict(
        env_prefix="QMT_",
        env_file=os.environ.get("QMT_ENV_FILE"),
        env_file_encoding="utf-8-sig",  # editors of Windows put a mark at the beginning
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # what was refused may be a secret
    )

    # -- where things live ------------------------------------------------------------------------------
    data_dir: Path = Field(Path("data"), description="Everything the embedded engines, spool and Dagster keep")
    host_name: str = Field("", description="Name of this host in heartbeats; empty = the machine's name")
    recordings_dir: Path | None = Field(None, description="Folder of recorded market data for `make validate`")

    # -- Redis (empty URL = the embedded one of data_dir) -------------------------------------------------
    redis_url: str = Field("", description="redis://host:port/db or rediss://…; no credentials in it")
    redis_username: str = ""
    redis_password: SecretStr | None = None
    redis_ca_file: Path | None = Field(None, description="CA bundle for rediss://")
    redis_port: int = Field(16379, description="Preferred port of the embedded Redis")
    redis_maxmemory_mb: int = Field(2048, description="Memory ceiling of the embedded Redis (noeviction)")

    # -- ClickHouse (empty URL = the embedded one of data_dir) --------------------------------------------
    clickhouse_url: str = Field("", description="http(s)://host:port; no credentials in it")
    clickhouse_username: str = "default"
    clickhouse_password: SecretStr | None = None
    clickhouse_ca_file: Path | None = None
    clickhouse_database: str = Field("qmt", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    clickhouse_port: int = Field(18123, description="Preferred port of the embedded ClickHouse")
    clickhouse_memory_mb: int = Field(0, ge=0, description="Memory ceiling of the embedded ClickHouse; 0 = half")
    clickhouse_cluster: str = Field(
        "", pattern=r"^[A-Za-z0-9_.-]*$", description="Cluster for ON CLUSTER DDL; empty = one server"
    )
    clickhouse_replicated: bool = Field(False, description="Replicated*MergeTree engines instead of plain ones")
    ticks_ttl_days: int = Field(30, ge=1, description="Ticks older than this are dropped")
    rejected_ttl_days: int = Field(30, ge=1)

    # -- the feed -------------------------------------------------------------------------------------------
    feed: Literal["xtquant", "simulator", "replay"] = Field(
        "xtquant" if sys.platform == "win32" else "simulator",
        description="xtquant = a running MiniQMT; simulator = the deterministic market; replay = recorded ticks",
    )
    feed_sectors: tuple[str, ...] = Field(
        ("沪深A股", "京市A股", "沪深ETF", "沪深转债"), description="Sectors of xtdata whose members are subscribed"
    )
    feed_symbols: tuple[str, ...] = Field(
        _MAIN_INDICES, description="Symbols subscribed beside the sectors' members (default: the main indices)"
    )
    feed_sector: str = Field("", description="One sector instead of QMT_FEED_SECTORS and QMT_FEED_SYMBOLS")
    member_sectors: tuple[str, ...] = Field(
        ("沪深A股", "京市A股", "创业板", "科创板", "沪深ETF", "沪深转债", "上证50", "沪深300", "中证500", "中证1000"),
        description="Sectors whose members are stored each day: industries and indices too",
    )
    feed_gather_ms: int = Field(30, ge=1, description="Longest time ticks are gathered into one batch")
    feed_gather_rows: int = Field(5000, ge=1, description="A batch is published at the latest at this size")
    feed_queue_rows: int = Field(100_000, ge=1000, description="Bound of the queue between callback and publisher")
    feed_stats_seconds: float = 30.0
    feed_silence_seconds: float = Field(15.0, description="No news of a market or kind in a session: re-subscribe")
    feed_ahead_seconds: float = Field(
        5.0,
        ge=0,
        description="A tick further ahead of the clock is rejected; a slow clock shows in all and is allowed for",
    )
    feed_confirmations: int = Field(
        3, ge=2, le=100, description="Snapshots of a symbol that agree with each other and overrule what was known"
    )
    feed_gap_seconds: float = Field(60.0, description="An outage longer than this makes the next snapshots baselines")
    feed_fallback_symbols: int = Field(300, ge=1, le=500, description="Per-symbol subscriptions when whole quote fails")
    book_levels: Literal[0, 1, 5] = Field(5, description="Levels of the order book that are published and stored")
    spool_max_mb: int = Field(4096, description="Disk bound of the spool used while Redis is away")

    # -- the stream -------------------------------------------------------------------------------------------
    stream_shards: int = Field(1, ge=1, le=64, description="Shards of the tick stream; fixed for a deployment")
    stream_retention_seconds: float = Field(900.0, description="Tick batches everyone has read are kept this long")
    bars_retention_hours: float = Field(72.0, description="minute_bar_stream keeps this much, read or not")
    stream_max_payload_mb: int = Field(32, ge=1, le=64, description="Larger entries are refused before decoding")
    writer_gather_ms: int = Field(250, ge=0, le=1000, description="Inserts are this far apart while it keeps up")
    writer_gather_rows: int = Field(5000, ge=1, description="… and follow each other at once from this many rows on")
    writer_few_rows: int = Field(500, ge=0, description="Fewer rows than this wait to fill a batch …")
    writer_few_rows_ms: int = Field(150, ge=0, le=2000, description="… at most this long, unless a minute can close")
    writer_ahead_seconds: float = Field(300.0, gt=0, description="Ticks later than the market's clock by more: refused")
    redis_block_ms: int = Field(1000, ge=10, le=2000)

    # -- the calendar, beyond the end of the package exchange-calendars ---------------------------------------------
    calendar_until: date | None = Field(None, description="Trading days are known up to here, with the holidays below")
    holidays: tuple[date, ...] = Field((), description="Closed weekdays after the package's end, as announced")

    # -- closing minutes ----------------------------------------------------------------------------------------
    close_grace_ms: int = Field(1000, description="A minute closes when market time is this far past its end")
    close_fallback_seconds: float = Field(30.0, description="… by the clock this long after: 11:30, 14:57 … 15:00")
    close_settle_ms: int = Field(
        10_000, ge=0, description="11:30 and 15:00 on the stream: a symbol's bar waits this long for its last snapshot"
    )
    rollup_periods: tuple[str, ...] = Field(
        ("5m", "15m", "30m", "60m", "1d"),
        description="Tables of bars besides 1m; also any Nm, 1w, 1mo (created by `qmt migrate`)",
    )
    publish_forming: bool = Field(False, description="Also stream the bars of the minute that is not closed yet")
    publish_revision_frames: int = Field(5, ge=0, description="Late ticks re-publish the bars of this many last frames")

    # -- Dagster ------------------------------------------------------------------------------------------------
    first_date: str = Field(
        "",
        description="First trading-day partition; empty = a year back, or the earliest day made or replayed",
    )
    dagster_port: int = 3000
    dagster_env_file: Path | None = Field(
        None, description="QMT_… settings that Dagster's processes have instead of their agent's: its own users"
    )
    dagster_url: str = Field("", description="Where the console reaches Dagster; empty = http://127.0.0.1:<port>")
    console_port: int = 3080
    console_bind: str = Field("127.0.0.1", description="Address the console listens on; loopback unless behind TLS")
    console_hosts: tuple[str, ...] = Field((), description="Further host names the console and Dagster answer to")
    console_token: SecretStr | None = Field(None, description="Needed for every change through the console")

    metrics_port: int = Field(9180, ge=0, le=65535, description="Prometheus metrics of a host's agent; 0 = none")
    metrics_bind: str = Field("127.0.0.1", description="Address of these metrics; others than loopback: firewall")

    # -- services and their agent ---------------------------------------------------------------------------------
    service_start_seconds: float = Field(60.0, gt=0, description="No heartbeat this long after a start: killed")
    service_stale_seconds: float = Field(5.0, gt=0, description="A heartbeat older than this: killed and started again")
    service_stop_seconds: float = Field(10.0, gt=0, description="Time to flush after a stop, before it is killed")
    service_stable_seconds: float = Field(30.0, gt=0, description="Up this long: the next restart is immediate again")
    service_backoff_max_seconds: float = Field(5.0, gt=0, description="Longest pause before a restart")
    service_memory_mb: int = Field(2048, ge=0, description="A service above this is restarted gracefully; 0 = no limit")

    # -- quality: limits of the checks (docs/quality.md); shares are of 1 -------------------------------------------
    quality_missing_symbols_warn: float = Field(0.02, description="Listed, not suspended symbols without data")
    quality_missing_symbols_error: float = 0.20
    quality_missing_frames_error: float = Field(0.001, description="Minutes missing after a symbol's first trade")
    quality_loss_rate_error: float = Field(0.001, description="Feed batches lost; any loss at all is a warning")
    quality_delay_p99_ms: float = Field(5000.0, description="Exchange time to callback, 99th percentile")
    quality_silence_warn_seconds: float = Field(30.0, description="No tick of the whole market inside the session")
    quality_silence_error_seconds: float = 120.0
    quality_rejected_share_warn: float = 0.001
    quality_rejected_share_error: float = 0.05
    quality_filled_share_warn: float = Field(0.5, description="Bars of minutes without a trade")
    quality_qmt_mismatch_warn: float = Field(0.005, description="Minutes that differ from QMT's own bars")
    quality_qmt_mismatch_error: float = 0.10
    quality_instruments_change_warn: float = 0.01
    quality_instruments_change_error: float = 0.10
    quality_disk_share_warn: float = Field(0.85, description="Disk in use")
    quality_disk_share_error: float = 0.95
    quality_silent_symbols_warn: float = Field(0.002, description="Active symbols that fall silent in one minute")
    quality_silent_symbols_error: float = 0.05
    quality_limits_unknown_warn: float = Field(0.01, description="Instruments without price limits (new listings)")
    quality_calendar_days: int = Field(20, ge=1, description="Trading days the calendar must know ahead")
    quality_calendar_missing_error: int = Field(10, ge=0, description="More of them missing than this is an ERROR")
    quality_lag_seconds: float = Field(10.0, description="The writer behind the tick stream")
    quality_lag_error_seconds: float = 60.0
    observe_seconds: int = Field(30, ge=5, description="Statistics of the stream are shown in Dagster this often")
    history_chunk_symbols: int = Field(200, ge=1, description="Symbols per request of QMT's history")
    gateway_symbol_days: int = Field(20_000, ge=1, description="Symbols × days of minute bars in one such request")
    history_timeout_seconds: float = Field(600.0, description="Longest wait for one request to the gateway")
    plugin_seconds: float = Field(60.0, gt=0, description="A plug-in that takes longer is given up")
    source_price_tolerance: float = Field(0.001, ge=0, description="Bars of another source: prices may differ, yuan")
    source_volume_tolerance: float = Field(0.01, ge=0, description="… and volumes, as a share")
    source_mismatch_warn: float = Field(0.005, description="Share of its bars that may differ or be missing")
    minute_runs_keep_days: int = Field(3, ge=1, description="Runs of finalize_minutes are deleted after this")

    # -- alerts ---------------------------------------------------------------------------------------------------
    alert_urls: SecretStr | None = Field(None, description="apprise URLs, separated by white space; [owner=]url")
    alert_window_minutes: float = Field(60.0, description="The same failure is announced once per window")
    dagster_base_url: str = Field("", description="Dagster's address in links; empty = http://127.0.0.1:<port>")
    public_url: str = Field(
        "", description="The console's address in alerts, e.g. https://market.example; empty = http://127.0.0.1:<port>"
    )
    language: Literal["en", "zh"] = Field("en", description="Language of alerts (the console follows the browser)")

    # -- the simulated market ---------------------------------------------------------------------------------------
    sim_symbols: int = Field(5150, ge=1, le=7000, description="Instruments; of several kinds, a mix as in the market")
    sim_kinds: tuple[str, ...] = Field(
        ("stock",), description="Kinds that are listed: stock, fund, index, convertible, repo"
    )
    sim_seed: int = 7
    sim_date: str = Field("2025-06-05", description="First simulated trading day")
    sim_speed: float = Field(20.0, ge=0, description="Market seconds per wall second; 0 = as fast as it goes")
    sim_start_time: str = Field("09:24:00", description="Market time at the start of the first simulated day")
    sim_anchor_ms: int = Field(0, description="Wall clock (epoch ms) of that start; set by `qmt up` for all processes")
    sim_clock_in_redis: bool = Field(False, description="Market time is read from Redis; set by `qmt up`")
    sim_faults: tuple[str, ...] = Field((), description="Planted faults, e.g. drop-symbols=20@10:15")
    replay_files: tuple[Path, ...] = ()
    replay_speed: float = Field(0.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _env_file_is_there(cls, values: Any) -> Any:
        path = os.environ.get("QMT_ENV_FILE")
        if path and not Path(path).is_file():
            raise ValueError(f"QMT_ENV_FILE names {path}, where no file is: settings and passwords would be missing")
        return values

    @model_validator(mode="after")
    def _holidays_up_to_a_day(self) -> Settings:
        if self.holidays and not self.calendar_until:
            raise ValueError("QMT_HOLIDAYS without QMT_CALENDAR_UNTIL: up to which day are these all the holidays?")
        return self

    @field_validator("redis_url", "clickhouse_url")
    @classmethod
    def _no_credentials_in_urls(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.password or parts.username:
            raise ValueError(
                "the URL holds credentials; give them as QMT_REDIS_USERNAME/QMT_REDIS_PASSWORD or "
                "QMT_CLICKHOUSE_USERNAME/QMT_CLICKHOUSE_PASSWORD"
            )
        return value

    @property
    def host(self) -> str:
        """Name of this host as used in heartbeats, leases and consumer names."""
        return self.host_name or socket.gethostname()

    @property
    def first_day(self) -> date:
        """The first trading-day partition: `first_date`, else the first of the month a year before today (of the first
        simulated day in a simulated market), or the earlier day that `keep_first_day` has kept."""
        if self.first_date:
            return date.fromisoformat(self.first_date)
        today = datetime.now(ZoneInfo("Asia/Shanghai")).date()
        now = today if self.feed == "xtquant" else min(today, date.fromisoformat(self.sim_date))
        first = date(now.year - 1, now.month, 1)
        try:
            return min(first, date.fromisoformat((self.data_dir / _FIRST_DAY).read_text().strip()))
        except (OSError, ValueError):
            return first

    def keep_first_day(self, day: date) -> None:
        """Partitions begin at *day* from now on, if they began later and QMT_FIRST_DATE does not say where."""
        if not self.first_date and day < self.first_day:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            (self.data_dir / _FIRST_DAY).write_text(day.isoformat())

    @property
    def console_url(self) -> str:
        """Base of links to the console, as people reach it."""
        return (self.public_url or f"http://127.0.0.1:{self.console_port}").rstrip("/")

    @property
    def run_dir(self) -> Path:
        """Pid files, ports and logs of what runs now."""
        return self.data_dir / "run"

    def engine_password(self, engine: Literal["redis", "clickhouse"], url: str | None = None) -> str:
        """The configured password, else the generated one when *url* (default: the configured one) is the address of
        the embedded engine of ``data_dir``. "" when there is none."""
        configured = getattr(self, f"{engine}_password")
        if configured is not None:
            return str(configured.get_secret_value())
        parts = urlsplit(getattr(self, f"{engine}_url") if url is None else url)
        try:
            if parts.netloc:
                port = json.loads((self.run_dir / f"{engine}.json").read_text())["port"]
                if (parts.hostname, parts.port) != ("127.0.0.1", port):
                    return ""
            return (self.run_dir / f"{engine}.password").read_text().removesuffix("\n")
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def child_environment(self, *, secrets: Collection[str]) -> dict[str, str]:
        """Environment of a child process that needs, of all secrets, only those of these settings' names."""
        hidden = {f"QMT_{name.upper()}" for name in SECRETS if name not in secrets} | {"QMT_ENV_FILE"}  # it has all
        return {k: v for k, v in {**os.environ, **self.environment()}.items() if k not in hidden}

    def environment(self) -> dict[str, str]:
        """The settings that differ from their defaults, as environment variables for a child process."""
        out: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or value == type(self).model_fields[name].default:
                continue
            if isinstance(value, SecretStr):
                text = value.get_secret_value()
            elif isinstance(value, tuple):
                text = json.dumps([str(v) for v in value])
            else:
                text = str(value)
            out[f"QMT_{name.upper()}"] = text
        return out


#: Names of the settings that no process gets which does not need them.
SECRETS: Final = tuple(name for name, field in Settings.model_fields.items() if field.annotation == SecretStr | None)


def process_settings(**chosen: Any) -> Settings:
    """The settings this process works by: of the environment, *chosen* on top. Also adds the announced days to the
    process's calendar; `Settings()` alone changes nothing outside itself."""
    settings = Settings(**chosen)
    calendar.extend(settings.calendar_until, settings.holidays)
    return settings


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once."""
    return process_settings()


def refusal(error: ValueError) -> str:
    """What is wrong with which setting, when *error* comes from reading the settings, else "". The refused value is
    not shown: it may be a secret."""
    if isinstance(error, ValidationError) and error.title == Settings.__name__:
        found = [(str(e["loc"][0]) if e["loc"] else "", e["msg"]) for e in error.errors(include_input=False)]
        return "settings refused: " + "; ".join(f"QMT_{name.upper()}: {text}" if name else text for name, text in found)
    if isinstance(error, SettingsError):
        return f'settings refused: {error} (lists are written as JSON, e.g. \'["5m", "30m"]\')'
    return ""
