"""The catalogue is whole: every text in both languages, every key used is there, no text of a page stands outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from qmt_orchestration.console.report import PLOTS
from qmt_orchestration.quality.names import CHECKS
from qmt_orchestration.texts import PARTS, catalogue, check_title, column, in_words, remedy, say

PACKAGE = Path(str(files("qmt_orchestration")))
STATIC = PACKAGE / "console" / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
PAGES = sorted(STATIC.glob("*.html"))
CHINESE = re.compile(r"[一-鿿]")
KEY = re.compile(r"^[a-z]+(\.[a-zA-Z_]+)+$")
#: Equal in both languages: names, commands, units.
SAME = re.compile(r"^(?:\W|\{\w+\}|Dagster|ETF|qmt [a-z-]+|--\w+|list|p99|QMT)+$")


@pytest.mark.parametrize("part", PARTS)
def test_every_text_has_both_languages_with_the_same_values(part: str) -> None:
    for key, pair in catalogue(part).items():
        english, chinese = pair
        assert all(pair), key
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", chinese)), key
        switch = key == "page.language"  # names the other language
        assert switch or not CHINESE.search(english), key
        assert switch or CHINESE.search(chinese) or SAME.match(chinese), f"{key} is not translated: {chinese}"


def test_every_check_has_a_title_and_a_remedy() -> None:
    for check in CHECKS:
        for language in ("en", "zh"):
            assert check_title(language, check.asset, check.name) != f"{check.asset} / {check.name}"
            assert remedy(language, check.name, "2025-06-05"), check.name


def test_every_column_of_offenders_has_a_name_in_both_languages() -> None:
    checks = PACKAGE / "warehouse" / "queries" / "checks"
    found = {
        name
        for path in checks.glob("*.sql")
        for name in re.findall(r"'(\w+)', (?:toString\()?\w", path.read_text("utf-8"))
    }
    shown = {"frame", "ours", "qmt", "symbols", "p99_ms"}
    assert shown <= found, "the pattern finds the columns of the evidence"
    assert {name for name in found if f"column.{name}" not in catalogue("console")} <= {"symbol", "instruments"}
    assert column("zh", "minutes_vol") == "分钟成交量合计"


def test_every_key_that_the_pages_and_the_code_use_is_in_the_catalogue() -> None:
    used: dict[str, str] = {}
    for path in [*SCRIPTS, *PAGES]:
        text = path.read_text("utf-8")
        found = re.findall(r'\bt\("([\w.]+)"', text) + re.findall(r'data-t(?:-\w+)?="([\w.]+)"', text)
        found += [key for pair in re.findall(r'\bt\([^()]*\? "([\w.]+)" : "([\w.]+)"\)', text) for key in pair]
        used |= dict.fromkeys(found, path.name)
    for path in [*(PACKAGE / "alerts").glob("*.py"), *(PACKAGE / "orchestration" / "sensors").glob("*.py")]:
        used |= dict.fromkeys(re.findall(r'\bsay\([\w.]+, "([\w.]+)"', path.read_text("utf-8")), path.name)
    used |= {f"plot.{line}": "report.py" for name, lines in PLOTS.items() for line in (name, *lines)}
    verdict = (PACKAGE / "console" / "verdict.py").read_text("utf-8")
    used |= dict.fromkeys(re.findall(r'"((?:verdict|head|checked|age)\.[.\w]+)"', verdict), "verdict.py")
    known = set(catalogue())
    assert {key: where for key, where in used.items() if key not in known} == {}
    assert len(used) > 150


class Texts(HTMLParser):
    """Text nodes and attributes that a visitor reads or hears."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.found += [value or "" for name, value in attrs if name in ("aria-label", "placeholder", "title", "alt")]

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.found.append(data)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_no_text_of_a_page_stands_outside_the_catalogue(path: Path) -> None:
    parser = Texts()
    parser.feed(path.read_text("utf-8"))
    words = [text.strip() for text in parser.found if re.search(r"[A-Za-z一-鿿]", text)]
    assert set(words) <= {"QMT"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_no_text_of_a_script_stands_outside_the_catalogue(path: Path) -> None:
    code = re.sub(r"^\s*//.*$|\s// .*$", "", path.read_text("utf-8"), flags=re.M)
    code = re.sub(r"^import .*$", "", code, flags=re.M)
    literals = re.findall(r'"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`', code)
    outside = []
    for literal in (re.sub(r"\$\{[^{}]*\}", "", a or b) for a, b in literals):
        shown = re.search(r"[一-鿿]|^[A-Z][a-z]+$|[A-Za-z]{2,} [A-Za-z]{2,}", literal)
        technical = TECHNICAL.match(literal)
        if shown and not technical and literal not in ALLOWED:
            outside.append(literal)
    assert outside == []


#: Selectors, classes, keys, protocol.
TECHNICAL = re.compile(
    r"[.#(\[]|button, a$|GET$|POST$|Asia/|Content-Type|Enter$|Escape$|Arrow|chip |verdict |name |card "
)
#: Chinese units that traders read in both languages, classes, and names of events and styles.
ALLOWED = frozenset({" 万", " 亿", "notice good", "sub warn", "rows checks"})


def test_what_the_checks_and_the_state_say_is_translated() -> None:
    assert in_words("zh", "5,141 symbols, 9 missing") == "5,141 只代码，缺 9 只"
    assert in_words("zh", "none of SH stock for 130.0 s at 10:02:00") == "截至 10:02:00，SH stock 已 130.0 秒无行情"
    assert in_words("zh", "held at 6 ×: ticks visible after 0.9 s") == "保持 6 ×：快照 0.9 秒后可查询"
    assert in_words("zh", "something nobody foresaw") == "something nobody foresaw"
    assert in_words("en", "publisher is silent") == "publisher is silent"
    assert say("zh", "todo", text="qmt status") == "处理：qmt status"


def test_what_every_check_expects_in_fixed_words_is_translated() -> None:
    checks = PACKAGE / "warehouse" / "queries" / "checks"
    fixed = re.compile(r"^\s+'((?:[^']|'')+)' AS expected", re.M)
    found = {m.replace("''", "'") for path in checks.glob("*.sql") for m in fixed.findall(path.read_text("utf-8"))}
    assert len(found) > 10
    assert [text for text in sorted(found) if in_words("zh", text) == text] == []
