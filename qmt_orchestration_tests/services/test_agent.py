"""The agent with real processes: killed, stopped, deaf, greedy services; a killed agent; an absent Redis."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from qmt_orchestration.services import agent as agent_module
from qmt_orchestration.services import link
from qmt_orchestration.services.child import ServiceState
from qmt_orchestration.services.dagster_processes import dagster_services
from qmt_orchestration.services.desired import ask_restart, read_desired, set_desired
from qmt_orchestration.services.registry import DAGSTER, SERVICES, Service, UnknownService
from qmt_orchestration.settings import SECRETS, Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import read_all
from qmt_orchestration_tests.helpers import free_port, wait_until
from qmt_orchestration_tests.services.conftest import AgentProcess, RedisServer, calm_settings

WAIT = 90.0  # seconds; what is waited for must come, and a loaded machine may take its time

Make = Callable[..., AgentProcess]


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _report(client: Any) -> dict[str, str]:
    return next((beat for beat in read_all(client) if beat["service"] == "agent"), {})


def _beating(client: Any, pid: int) -> bool:
    return any(beat["service"] == "tiny" and beat["pid"] == str(pid) for beat in read_all(client))


@dataclass
class Shared:
    """One Redis and one agent with one service, for the tests that leave it running."""

    server: RedisServer
    settings: Settings
    client: Any
    agent: AgentProcess
    uncalled: list[int]  # what the agent had started while its service was to be stopped

    @property
    def pid(self) -> int:
        """The service's process, once it beats."""

        def beating() -> int:
            pid = self.agent.events("start")[-1] if self.agent.events("start") else 0
            return pid if pid and not _gone(pid) and _beating(self.client, pid) else 0

        return wait_until(beating, WAIT, "the service to beat")

    def after(self, pid: int) -> int:
        """Another process than *pid*, once it beats."""
        wait_until(lambda: self.agent.events("start")[-1] != pid, WAIT, "another process")
        return self.pid


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("agent")
    server = RedisServer(folder / "redis", free_port())
    server.start()
    settings = calm_settings(server, folder)
    client = connect(settings, retries=0)
    client.hset(keys.DESIRED, "tiny", "stopped")
    agent = AgentProcess(settings)
    agent.start()
    wait_until(lambda: _report(client).get("tiny.state") == "stopped", WAIT, "the agent's report")
    uncalled = agent.events("start")
    client.hset(keys.DESIRED, "tiny", "running")
    yield Shared(server, settings, client, agent, uncalled)
    agent.end()
    client.close()
    server.kill()


def test_a_service_that_should_not_run_is_not_started(shared: Shared) -> None:
    assert shared.uncalled == []
    assert shared.pid


def test_a_killed_service_is_started_again(shared: Shared) -> None:
    first, before = shared.pid, int(_report(shared.client).get("tiny.restarts", 0))
    os.kill(first, signal.SIGKILL)
    shared.after(first)
    report = wait_until(
        lambda: (r := _report(shared.client)).get("tiny.restarts") == str(before + 1) and r, WAIT, "the report"
    )
    assert report["tiny.last_exit"] == "-9"
    assert report["tiny.state"] == "running"


def test_a_hanging_service_is_killed_and_started_again(shared: Shared) -> None:
    first = shared.pid
    os.kill(first, signal.SIGSTOP)
    shared.after(first)
    assert _gone(first)
    assert "no heartbeat" in wait_until(lambda: _report(shared.client).get("tiny.reason"), WAIT, "the reason")


def test_a_restart_is_done_once_and_a_stop_flushes(shared: Shared) -> None:
    first = shared.pid
    shared.client.hincrby(keys.DESIRED, "tiny#restart", 1)
    second = shared.after(first)
    assert shared.agent.events("flush")[-1] == first
    shared.client.hset(keys.DESIRED, "tiny", "stopped")
    wait_until(lambda: _report(shared.client).get("tiny.state") == "stopped", WAIT, "the stop")
    assert shared.agent.events("flush")[-1] == second
    assert shared.agent.events("start")[-1] == second
    shared.client.hset(keys.DESIRED, "tiny", "running")
    shared.after(second)


def test_agent_goes_on_while_redis_is_away(shared: Shared) -> None:
    first = shared.pid
    shared.server.kill()
    begun = time.monotonic()
    wait_until(
        lambda: time.monotonic() - begun > 1.5 * shared.settings.service_stale_seconds, WAIT, "the stale time to pass"
    )
    assert shared.agent.events("start")[-1] == first, "silence means nothing while Redis is away"
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: shared.agent.events("start")[-1] != first, WAIT, "a restart without Redis")
    shared.server.start()
    shared.after(first)


def test_a_second_agent_on_the_same_folder_is_refused(shared: Shared) -> None:
    pid = shared.pid
    second = AgentProcess(shared.settings)
    second.start()
    assert second.processes[-1].wait(90) == 73
    assert "already works on data_dir" in (shared.settings.data_dir / "agent.log").read_text()
    assert shared.pid == pid


def test_a_killed_agent_leaves_nothing_and_the_next_one_ends_what_could_not_end(shared: Shared) -> None:
    first = shared.pid
    shared.agent.kill()
    wait_until(lambda: _gone(first), WAIT, "the service to end with its agent")
    assert shared.agent.events("flush")[-1] == first, "it flushed although nobody could ask it"
    shared.agent.start()
    second = shared.after(first)
    os.kill(second, signal.SIGSTOP)
    shared.agent.kill()
    shared.agent.start()
    shared.after(second)
    assert _gone(second)


def test_an_agent_that_is_stopped_leaves_nothing(shared: Shared) -> None:
    last = shared.pid
    assert shared.agent.stop() == 0
    assert _gone(last)
    assert shared.agent.events("flush")[-1] == last
    assert list((shared.settings.run_dir / "services").glob("*.json")) == []


def test_a_service_that_does_not_react_is_killed_after_its_time(calm: Settings, client: Any, agents: Make) -> None:
    agent = agents(calm.model_copy(update={"service_stop_seconds": 2.0}), module="tiny_deaf")
    pid = wait_until(lambda: agent.events("start"), WAIT, "the start")[0]
    client.hset(keys.DESIRED, "tiny", "stopped")
    wait_until(lambda: _gone(pid), WAIT, "its end")
    assert wait_until(lambda: _report(client).get("tiny.last_exit"), WAIT, "the report") == "-9"


def test_crashes_back_off_and_no_secret_reaches_a_log(calm: Settings, server: RedisServer, agents: Make) -> None:
    secret = "hunter2-Δ/x"
    settings = calm.model_copy(update={"redis_password": SecretStr(secret)})
    agent = agents(settings, module="tiny_crash")
    wait_until(lambda: len(agent.events("start")) >= 3, WAIT, "three starts")
    agent.stop()
    starts = len(agent.events("start"))
    assert starts <= 12, "pauses grow: 0, 1, 2, 2 … s"
    text = "".join(path.read_text() for path in (calm.data_dir / "logs").iterdir())
    assert "RuntimeError" in text
    assert "***" in text
    for trace in (secret, "hunter2"):
        assert trace not in text
        assert trace not in (calm.data_dir / "agent.log").read_text()


def test_no_service_gets_a_secret_that_it_does_not_need(calm: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from the agent's settings, nor from its environment, nor as the file that holds them all."""
    holder = calm.data_dir / "qmt.env"
    holder.parent.mkdir(parents=True, exist_ok=True)
    holder.write_text("")
    monkeypatch.setenv("QMT_ENV_FILE", str(holder))
    monkeypatch.setenv("QMT_CONSOLE_TOKEN", "of-the-shell")
    settings = calm.model_copy(update=dict.fromkeys(SECRETS, SecretStr("known-to-the-agent")))
    all_of_them = [*SERVICES.values(), *dagster_services(settings, DAGSTER)]
    program = "import os, sys; print(sys.argv[1], *sorted(n for n in os.environ if n.startswith('QMT_')))"
    agent = agent_module.Agent(settings)
    agent.open()
    alike = {"beats": False, "probe": None, "needs": (), "once": True}
    agent.add([replace(s, command=(sys.executable, "-c", program, s.name), **alike) for s in all_of_them])
    ended = ServiceState.FINISHED

    def all_have_ended() -> bool:
        agent.step()
        return all(child.state is ended for child in agent.children.values())

    wait_until(all_have_ended, WAIT, "all to have said what they got")
    agent.close()
    secret = {f"QMT_{name.upper()}" for name in SECRETS} | {"QMT_ENV_FILE"}
    said = {s.name: set((agent.log_dir / f"{s.name}.out").read_text().split()) & secret for s in all_of_them}
    redis, both = {"QMT_REDIS_PASSWORD"}, {"QMT_REDIS_PASSWORD", "QMT_CLICKHOUSE_PASSWORD"}
    assert said == {
        "subscriber": redis,
        "gateway": redis,
        "writer": both,
        "publisher": both,
        "console": both | {"QMT_CONSOLE_TOKEN"},
        "dagster-code": both | {"QMT_ALERT_URLS"},
        "dagster-daemon": both | {"QMT_ALERT_URLS"},
        "dagster-webserver": set(),
    }


def test_memory_ceiling_restarts_gracefully(calm: Settings, client: Any, agents: Make) -> None:
    agent = agents(calm.model_copy(update={"service_memory_mb": 250}), module="tiny_hog")
    first = wait_until(lambda: agent.events("start"), WAIT, "the start")[0]
    wait_until(lambda: agent.events("start")[1:], WAIT, "the restart")
    assert agent.events("flush") == [first], "it was asked, not killed"
    assert "memory above 250 MB" in wait_until(lambda: _report(client).get("tiny.reason"), WAIT, "the reason")


def test_a_service_with_an_end_is_not_started_again(calm: Settings, client: Any, agents: Make) -> None:
    agent = agents(calm, once=True)
    first = wait_until(lambda: agent.events("start"), WAIT, "the start")[0]
    os.kill(first, signal.SIGTERM)  # its run() returns 0, as at the end of a recording
    wait_until(lambda: _report(client).get("tiny.state") == "finished", WAIT, "the end")
    assert agent.events("start") == [first]


def test_two_hosts_never_both_run_a_leased_service(calm: Settings, client: Any, agents: Make) -> None:
    """The second stands by; when the first is killed it takes over, and its fencing token is higher."""
    other = calm.model_copy(update={"host_name": "h2", "data_dir": calm.data_dir.parent / "data2"})
    one = agents(calm, lease="only")
    wait_until(lambda: one.events("start"), WAIT, "the start on h1")
    two = agents(other, lease="only")
    wait_until(lambda: any(b.get("state") == "standby" for b in read_all(client)), WAIT, "h2 to stand by")
    token = int(client.get(keys.FENCE.format(name="only")))
    assert two.events("start") == []
    one.kill()
    wait_until(lambda: two.events("start"), WAIT, "h2 to take over")
    assert int(client.get(keys.FENCE.format(name="only"))) > token
    wait_until(lambda: _gone(one.events("start")[0]), WAIT, "the first to end")


def test_a_leased_service_that_slept_through_its_lease_gives_way(calm: Settings, client: Any, agents: Make) -> None:
    """SIGSTOP outlives the lease; the stand-by takes over; on waking, the first ends instead of working on."""
    patient = calm.model_copy(update={"service_stale_seconds": 60.0})
    other = patient.model_copy(update={"host_name": "h2", "data_dir": calm.data_dir.parent / "data2"})
    one = agents(patient, lease="only")
    first = wait_until(lambda: one.events("start"), WAIT, "the start on h1")[0]
    two = agents(other, lease="only")
    wait_until(lambda: any(b.get("state") == "standby" for b in read_all(client)), WAIT, "h2 to stand by")
    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: two.events("start"), WAIT, "h2 to take over")
    os.kill(first, signal.SIGCONT)
    wait_until(lambda: _gone(first), WAIT, "the sleeper to give way")
    assert wait_until(lambda: _report_of(client, "h1").get("tiny.last_exit"), WAIT, "its exit code") == "75"


def _report_of(client: Any, host: str) -> dict[str, str]:
    return next((b for b in read_all(client) if b["service"] == "agent" and b["host"] == host), {})


@pytest.mark.skipif(sys.platform == "win32", reason="systemd")
def test_systemd_is_notified_that_the_agent_runs(
    calm: Settings, agents: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(WAIT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        agents(calm)
        assert [systemd.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]


def test_clocks_that_disagree_are_logged_once(
    calm: Settings, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = link._now_ms
    monkeypatch.setattr(link, "_now_ms", lambda: real() - 7000)
    line = link.Link(calm, [])
    line.start()
    beat = wait_until(lambda: (b := _report(client)).get("clock_skew_ms") and b, WAIT, "the agent's heartbeat")
    assert int(beat["clock_skew_ms"]) == pytest.approx(-7000, abs=900)
    monkeypatch.setattr(link, "_now_ms", real)
    wait_until(lambda: abs(int(_report(client)["clock_skew_ms"])) < 900, WAIT, "the clock to be set right")
    line.close()
    warnings = [record.message for record in caplog.records if "clock" in record.message]
    assert len(warnings) == 1
    assert "s behind that of Redis' host" in warnings[0]


def test_what_a_library_prints_for_months_stays_bounded(calm: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service holds its file open and appends: it is emptied under it, the last part is kept beside it."""
    monkeypatch.setattr(agent_module, "_OUTPUT_BYTES", 1000)
    agent = agent_module.Agent(calm, [Service("tiny", "some.module")])
    agent.log_dir.mkdir(parents=True)
    with (agent.log_dir / "tiny.out").open("ab", buffering=0) as held:
        held.write(b"x" * 2000)
        agent._bound_outputs()
        held.write(b"and on")
    assert (agent.log_dir / "tiny.out").read_bytes() == b"and on"
    assert (agent.log_dir / "tiny.out.1").stat().st_size == 2000


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which even root can write nothing")
def test_a_full_disk_keeps_no_service_from_starting(calm: Settings, client: Any, agents: Make) -> None:
    calm.run_dir.mkdir(parents=True)
    (calm.run_dir / "services").symlink_to("/proc")
    agent = agents(calm)
    first = wait_until(lambda: agent.events("start"), WAIT, "the start")[0]
    wait_until(lambda: _beating(client, first), WAIT, "its heartbeat")
    assert "cannot be written" in (calm.data_dir / "agent.log").read_text()


def test_desired_state_of_known_services_only(client: Any) -> None:
    set_desired(client, "writer", "stopped")
    assert read_desired(client)["writer"].state == "stopped"
    assert ask_restart(client, "writer") == 1
    assert read_desired(client)["writer"].state == "running"
    assert read_desired(client)["writer"].generation == 1
    with pytest.raises(UnknownService, match="writer"):
        set_desired(client, "wirter", "running")


def test_registry_names_importable_modules() -> None:
    import importlib.util

    for service in SERVICES.values():
        assert importlib.util.find_spec(service.module.rpartition(".")[0]), service.module
    assert "--module" in Service("x", "some.module").argv("logs")
    assert "--module" not in SERVICES["writer"].argv("logs")
