"""The daily report as Markdown and as one self-contained HTML page: a table of verdicts and four plots, drawn as
plain SVG."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

WIDTH, HEIGHT, PAD = 860, 180, 44
COLOURS: Final = ("#2463a8", "#d1742f")


@dataclass(frozen=True)
class Verdict:
    """The newest outcome of a check on a day."""

    asset: str
    check: str
    passed: bool
    severity: str
    expected: str
    found: str
    checked_at: datetime

    @property
    def word(self) -> str:
        """passed, WARN or ERROR."""
        return "passed" if self.passed else self.severity


@dataclass(frozen=True)
class Plot:
    """Lines over the minutes of a day: (minute label, one value per line)."""

    title: str
    lines: tuple[str, ...]
    points: Sequence[tuple[str, Sequence[float]]]
    nothing: str  # said instead when there are no points


@dataclass(frozen=True)
class Report:
    """What the report of a day holds."""

    day: date
    verdicts: Sequence[Verdict]
    plots: Sequence[Plot]
    worst: Sequence[Sequence[object]]  # symbol, bars, filled, history, score

    @property
    def headline(self) -> str:
        """The day in one line."""
        failed = [v for v in self.verdicts if not v.passed]
        errors = sum(v.severity == "ERROR" for v in failed)
        if not failed:
            return f"{self.day}: all {len(self.verdicts)} checks passed"
        return f"{self.day}: {len(failed)} of {len(self.verdicts)} checks failed, {errors} with ERROR"


VERDICT_HEADER: Final = ("verdict", "table", "check", "expected", "found", "checked")
WORST_HEADER: Final = ("symbol", "bars", "filled", "from history", "score")


def markdown(report: Report) -> str:
    """For the asset's page: verdicts, failures first, the plots as bars of text, the worst symbols."""
    out = [
        f"### {report.headline}",
        "",
        "| verdict | table | check | expected | found |",
        "| --- | --- | --- | --- | --- |",
    ]
    mark = {"passed": "✅", "WARN": "⚠️ WARN", "ERROR": "❌ ERROR"}
    out += [
        f"| {mark[v.word]} | {v.asset} | {v.check} | {_cell(v.expected)} | {_cell(v.found)} |" for v in report.verdicts
    ]
    for plot in report.plots:
        out += ["", f"**{plot.title}**", ""]
        out += (
            [f"`{_spark(plot, i)}` {name}: {_range(plot, i)}  " for i, name in enumerate(plot.lines)]
            if plot.points
            else [plot.nothing]
        )
    out += ["", "**Symbols with the lowest scores**", "", "| " + " | ".join(WORST_HEADER) + " |", "| --- " * 5 + "|"]
    out += ["| " + " | ".join(_cell(str(c)) for c in row) + " |" for row in report.worst]
    return "\n".join(out)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _range(plot: Plot, line: int) -> str:
    values = [v[line] for _, v in plot.points]
    return f"{min(values):,.1f} to {max(values):,.1f}, {plot.points[0][0]} to {plot.points[-1][0]}"


def _spark(plot: Plot, line: int, cells: int = 48) -> str:
    values = [v[line] for _, v in plot.points]
    step = max(len(values) / cells, 1.0)
    shown = [values[int(i * step)] for i in range(min(cells, len(values)))]
    top = max(*shown, 1e-9) if len(shown) > 1 else 1.0
    return "".join("▁▂▃▄▅▆▇█"[min(int(max(v, 0.0) / top * 7.999), 7)] for v in shown)


def page(report: Report) -> str:
    """One HTML file without scripts or outside files; light and dark."""
    rows = "".join(
        f'<tr class="{v.word.lower()}"><td>{v.word}</td><td>{_e(v.asset)}</td><td>{_e(v.check)}</td>'
        f"<td>{_e(v.expected)}</td><td>{_e(v.found)}</td><td>{v.checked_at:%m-%d %H:%M}</td></tr>"
        for v in report.verdicts
    )
    plots = "".join(
        f"<h2>{_e(p.title)}</h2>{svg(p) if p.points else '<p>' + _e(p.nothing) + '</p>'}" for p in report.plots
    )
    worst = "".join("<tr>" + "".join(f"<td>{_e(str(c))}</td>" for c in row) + "</tr>" for row in report.worst)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Data quality {report.day}</title><style>{STYLE}</style></head><body>
<h1>{_e(report.headline)}</h1>
<div class="wide"><table><tr>{_header(VERDICT_HEADER)}</tr>{rows}</table></div>
{plots}
<h2>Symbols with the lowest scores</h2><div class="wide"><table><tr>{_header(WORST_HEADER)}</tr>{worst}</table></div>
</body></html>
"""


def _header(names: Sequence[str]) -> str:
    return "".join(f"<th>{name}</th>" for name in names)


STYLE: Final = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:920px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:2rem}.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #8884;font-size:.9rem}
tr.warn td:first-child{color:#b26a00;font-weight:600}tr.error td:first-child{color:#c62828;font-weight:600}
tr.passed td:first-child{color:#2e7d32}svg{width:100%;height:auto}svg text{fill:currentColor;font-size:11px}
"""


def svg(plot: Plot) -> str:
    """The plot as SVG: one line per series, the highest value and the first and last minute marked."""
    count = len(plot.points)
    top = max((max(values) for _, values in plot.points), default=0.0) or 1.0

    def x(i: int) -> float:
        return PAD + i * (WIDTH - 2 * PAD) / max(count - 1, 1)

    def y(value: float) -> float:
        return HEIGHT - 24 - max(value, 0.0) / top * (HEIGHT - 54)

    parts = [
        f'<line x1="{PAD}" y1="{y(0):.1f}" x2="{WIDTH - PAD}" y2="{y(0):.1f}" stroke="currentColor" opacity=".4"/>'
    ]
    for line, name in enumerate(plot.lines):
        points = " ".join(f"{x(i):.1f},{y(v[line]):.1f}" for i, (_, v) in enumerate(plot.points))
        colour = COLOURS[line % len(COLOURS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{PAD + 130 * line}" y="14" style="fill:{colour}">{_e(name)}</text>')
    parts.append(f'<text x="{PAD - 4}" y="{y(top) + 4:.1f}" text-anchor="end">{top:,.4g}</text>')
    for i in sorted({0, count // 4, count // 2, 3 * count // 4, count - 1}):
        parts.append(f'<text x="{x(i):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{_e(plot.points[i][0])}</text>')
    label = html.escape(plot.title, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _e(text: str) -> str:
    return html.escape(text)
