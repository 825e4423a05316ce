"""Dagster's pages answer their own hosts and pages, and nobody else's."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from qmt_orchestration.client import dagster
from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.helpers import free_port, wait_until

QUERY = "/graphql?query=" + quote("{ version }")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of the webserver, without a code location."""
    folder, chosen = tmp_path_factory.mktemp("dagster"), free_port()
    (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    argv = [sys.executable, "-m", "qmt_orchestration.orchestration.webserver", "--empty-workspace"]
    argv += ["-h", "127.0.0.1", "-p", str(chosen), "--log-level", "warning"]
    env = {**os.environ, "DAGSTER_HOME": str(folder), "QMT_DAGSTER_BASE_URL": "https://market.example/dagster"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(chosen, process, folder / "log"), 90, "the webserver answers", every=0.2)
        yield chosen
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return ask(port, "/server_info")[0] == 200
    except OSError:
        return False


def ask(port: int, path: str, *, method: str = "GET", host: str = "", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    sent = {name.replace("_", "-"): value for name, value in headers.items()} | ({"Host": host} if host else {})
    connection.request(method, path, headers=sent)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text


def test_the_pages_and_the_api_work_under_their_own_names(port: int) -> None:
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "market.example"):
        status, text = ask(port, "/", host=host)
        assert (status, "<html" in text) == (200, True), host
    assert json.loads(ask(port, QUERY)[1])["data"]["version"]
    own = f"http://127.0.0.1:{port}"
    assert ask(port, QUERY, method="POST", Origin=own, Sec_Fetch_Site="same-origin")[0] == 200
    assert ask(port, QUERY, method="POST", host="market.example", Origin="https://market.example")[0] == 200


def test_a_name_that_was_rebound_to_loopback_is_refused(port: int) -> None:
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "127.0.0.1@evil.example"):
        for path in ("/", QUERY, "/server_info"):
            assert ask(port, path, host=host)[0] == 400, host


def test_another_sites_page_cannot_make_a_browser_ask(port: int) -> None:
    mutation = "/graphql?query=" + quote("mutation { launchRun(executionParams: {}) { __typename } }")
    image = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}
    assert ask(port, mutation, **image)[0] == 403, "an image whose address is a mutation"
    assert ask(port, mutation, method="POST", Origin="https://evil.example")[0] == 403, "a form"
    assert ask(port, mutation, method="POST", Origin="null")[0] == 403, "a form in a sandbox"
    assert ask(port, QUERY, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="cors")[0] == 403, "another port of this machine"
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Accept": "text/html"}
    assert ask(port, "/runs", **link)[0] == 200, "the link in an alert"


def test_websockets_are_checked_too(port: int) -> None:
    async def opened(origin: str) -> int:
        try:
            async with connect(f"ws://127.0.0.1:{port}/graphql", origin=origin, subprotocols=["graphql-ws"]):  # type: ignore[arg-type, list-item]
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    assert asyncio.run(opened(f"http://127.0.0.1:{port}")) == 101
    assert asyncio.run(opened("https://evil.example")) == 403


def test_the_console_asks_for_a_run_in_the_webservers_own_words(port: int, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, dagster_port=port)
    with pytest.raises(dagster.DagsterError, match="has no job make_day"):
        dagster.launch(settings, "make_day", "2025-06-05", "console")
    with pytest.raises(LookupError, match="no run"):
        dagster.progress(settings, "3f2a0000-0000-0000-0000-000000000000")
