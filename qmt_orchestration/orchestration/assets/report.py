"""The daily quality report: every verdict of the day, completeness, delay, volume against QMT, the worst symbols."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from qmt_orchestration.orchestration.assets.columns import OWNER
from qmt_orchestration.orchestration.assets.making import Materialized
from qmt_orchestration.orchestration.resources import ClickHouseResource
from qmt_orchestration.quality.render import Plot, Report, Verdict, markdown, page
from qmt_orchestration.warehouse.client import load_sql


def build_report_assets(days: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """``quality_report``."""

    @dg.asset(
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=["bars_1d", "bars_5m", "bars_30m", "qmt_bars_1m"],
        group_name="quality",
        kinds={"html"},
        owners=[OWNER],
        description=(
            "The report of a trading day: all checks, what was expected and found, plots of completeness, delay,"
            " volumes against QMT, and the worst symbols. Shown here as Markdown; the same as an HTML page in"
            " data_dir/reports."
        ),
    )
    def quality_report(context: dg.AssetExecutionContext, clickhouse: ClickHouseResource) -> Materialized:
        client, folder = clickhouse.connect(), clickhouse.settings.data_dir / "reports"
        last: dict[str, Any] = {}
        for key in context.partition_keys:
            last = _make(client, date.fromisoformat(key), folder)
            if len(context.partition_keys) > 1:
                context.add_asset_metadata(last, asset_key="quality_report", partition_key=key)
        return dg.MaterializeResult(metadata=last if len(context.partition_keys) == 1 else {})

    return [quality_report]


def _make(client: Any, day: date, folder: Path) -> dict[str, Any]:
    report = collect(client, day)
    path = write(report, folder)
    failed = [v for v in report.verdicts if not v.passed]
    return {
        "report": dg.MetadataValue.md(markdown(report)),
        "page": dg.MetadataValue.path(path.resolve()),
        "checks": len(report.verdicts),
        "failed": len(failed),
        "failed_with_error": sum(v.severity == "ERROR" for v in failed),
    }


def collect(client: Any, day: date) -> Report:
    """Read what the report of *day* shows."""

    def rows(name: str) -> Sequence[Sequence[Any]]:
        found: Sequence[Sequence[Any]] = client.query(load_sql(f"report/{name}"), parameters={"day": day}).result_rows
        return found

    def plot(title: str, name: str, lines: tuple[str, ...], nothing: str) -> Plot:
        return Plot(title, lines, [(r[0], [float(v) for v in r[1:]]) for r in rows(name)], nothing)

    return Report(
        day,
        verdicts(client, day),
        [
            plot("Symbols with a bar, by minute", "completeness_by_minute", ("bars", "with trades"), "no bars"),
            plot(
                "Delay of the feed, ms, by minute",
                "delay_by_minute",
                ("p50", "p99"),
                "no live ticks: recorded or simulated",
            ),
            plot("Volume of the market, million shares", "volume_against_qmt", ("ours", "QMT"), "no bars"),
        ],
        rows("worst_symbols"),
    )


def verdicts(client: Any, day: date) -> list[Verdict]:
    """The newest verdict of each check on *day*, failures first."""
    found = client.query(load_sql("report/verdicts"), parameters={"day": day}).result_rows
    return [Verdict(r[0], r[1], bool(r[2]), r[3], r[4], r[5], r[6]) for r in found]


def write(report: Report, folder: Path) -> Path:
    """Write the HTML page ``<day>.html``; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.day}.html"
    draft = path.with_suffix(".html.part")
    draft.write_text(page(report), encoding="utf-8")
    draft.replace(path)
    return path
