"""Links, commands, settings and paths that the documents name exist; Chinese pages have the same code."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import typer

from qmt_orchestration.cli.main import app
from qmt_orchestration.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted(ROOT.glob("docs/**/*.md"))]
#: English pages that have a Chinese counterpart.
TRANSLATED = {ROOT / "README.md": ROOT / "README.zh-CN.md"} | {
    ROOT / "docs" / f"{name}.md": ROOT / "docs" / "zh" / f"{name}.md"
    for name in ("tutorial", "queries", "clients", "bars", "instruments", "operations")
}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
#: Folders in which a path of a document may begin.
BASES = [ROOT, ROOT / "qmt_orchestration", ROOT / "qmt_orchestration_tests", ROOT / "qmt_orchestration" / "console"]
#: Made by a command, not in the repository.
GENERATED = ("deploy/docker/secrets",)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(text: str) -> list[str]:
    """The code blocks of a page; drawings (```text) are none."""
    return [body for _, language, body in FENCE.findall(text) if language != "text"]


def code(text: str) -> list[str]:
    """All lines of code of a page, comments cut: of its blocks, and each inline span."""
    lines = [re.sub(r"(^|\s)#\s.*", "", line) for body in blocks(text) for line in body.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


@cache
def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), f"{page.name} links {target}"
        assert not anchor or anchor in anchors(found), f"{page.name} links {target}: no such heading"


@every_page
def test_commands_and_options_exist(page: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in code(page.read_text()):
        for call in re.findall(r"(?<![\w./-])qmt ([^|;&]*)", re.sub(r"(?<=\w)\|(?=\w)", " or ", line)):
            words = call.split()
            if not words or not re.fullmatch(r"[a-z][a-z-]*", words[0]):
                continue
            command = commands.get(words[0])
            assert command, f"{page.name}: qmt {call}"
            group = getattr(command, "commands", None)
            if group and len(words) > 1 and re.fullmatch(r"[a-z][a-z-]*", words[1]):
                command = group.get(words[1])
                assert command, f"{page.name}: qmt {call}"
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", call):
                assert option in known, f"{page.name}: qmt {call}"


@every_page
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in code(page.read_text()):
        for target in re.findall(r"(?:^|[;&] *)make ([a-z]+)", line.strip()):
            assert target in targets, f"{page.name}: {line}"


@every_page
def test_settings_exist(page: Path) -> None:
    known = {f"QMT_{name.upper()}" for name in Settings.model_fields} | {"QMT_ENV_FILE"}
    known |= set(re.findall(r"QMT_\w+", (ROOT / "deploy" / "compose.yaml").read_text()))  # variables of the containers
    for name in re.findall(r"QMT_[A-Z][A-Z0-9_]*", page.read_text()):
        there = any(k.startswith(name) for k in known) if name.endswith("_") else name in known
        assert there, f"{page.name} names {name}"


@every_page
def test_paths_exist(page: Path) -> None:
    """`folder/file`, `file.py`, `module/file.function`, `test_file.py::test_name`."""
    file: Path | None = None
    for span in re.findall(r"`([^`\s]+)`", FENCE.sub("", page.read_text())):
        path, _, test = span.lstrip("…").partition("::")
        if test and not path and file:  # `…::test_name` of the file named before
            assert test.rstrip("…") in file.read_text(), f"{page.name} names {span} of {file.name}"
        if not re.fullmatch(r"\.?[\w*-][\w.*-]*(/[\w.*-]+)*/?", path) or path.startswith(GENERATED):
            continue
        if "/" in path:
            if not any((base / path.split("/")[0]).is_dir() for base in BASES):
                continue
        elif not re.search(r"\w\.(py|sql|md|toml|sh|ps1|ipynb)$", path):
            continue
        found = _files(path) or _files(re.sub(r"\.\w+$", ".py", path))
        assert found, f"{page.name} names {span}"
        file = found[0]
        assert test.rstrip("…") in (file.read_text() if test else ""), f"{page.name} names {span}"


def _files(path: str) -> list[Path]:
    path = path.rstrip("/")
    return [hit for base in BASES for hit in base.glob(path)] or (
        [] if "/" in path else list(ROOT.glob(f"*/**/{path}"))
    )


def test_the_map_of_the_architecture_names_every_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"^  (\w+)/ ", text, re.MULTILINE))
    package = ROOT / "qmt_orchestration"
    assert named == {folder.parent.name for folder in package.glob("*/__init__.py")}


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_chinese_page_has_the_same_code(page: Path) -> None:
    """Commands and programs are the same, line by line; comments and drawings (```text) are translated."""

    def program(text: str) -> list[str]:
        lines = [re.sub(r"(^|\s+)#\s.*", "", line).strip() for body in blocks(text) for line in body.splitlines()]
        return [line for line in lines if line]

    assert program(TRANSLATED[page].read_text()) == program(page.read_text())
