// The report of one day: each check with what was expected and found, the offenders by name, and the day made again on request.
import { change, openLogin, startAccess, unlocked } from "./access.js";
import { $, el, fill, number, shanghai } from "./dom.js";
import { known, pick, startTexts, switchLanguage, t } from "./texts.js";

const wanted = new URLSearchParams(location.search);
const day = wanted.get("day") || "";
const ENDED = ["SUCCESS", "FAILURE", "CANCELED"];
const CODE = /(\d{6}\.[A-Z]{2})/;
let about = {};

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

async function draw() {
  const reply = await fetch(`/api/report?day=${encodeURIComponent(day)}`);
  const report = await reply.json();
  if (!reply.ok) return notice(report.error);
  const failed = report.checks.filter((c) => !c.passed), errors = failed.filter((c) => c.severity === "ERROR");
  const n = report.checks.length;
  $("title").textContent = document.title = t("report.title", { day: report.day });
  $("verdict").className = `verdict ${errors.length ? "bad" : failed.length || !n ? "warn" : "ok"}`;
  $("verdict-head").textContent = !report.trading_day ? t("report.holiday", { day: report.day }) : !n ? t("report.nothing", { day: report.day })
    : failed.length ? t("report.failed", { day: report.day, n, failed: failed.length, errors: errors.length }) : t("report.clear", { day: report.day, n });
  $("account").textContent = t("report.account", Object.fromEntries(Object.entries(report.account).map(([k, v]) => [k, number(v)])));
  for (const button of [$("make"), $("fill")]) button.disabled = !report.trading_day;
  const chosen = (c) => c.asset === wanted.get("asset") && c.check === wanted.get("check");
  fill($("failing"), report.checks.filter((c) => !c.passed || chosen(c)).sort((a, b) => chosen(b) - chosen(a)).map((c) => card(c, report, chosen(c))));
  const passed = report.checks.filter((c) => c.passed && !chosen(c));
  $("passed-box").hidden = !passed.length;
  $("passed-box").open ||= !failed.length;
  fill($("passed"), passed.map((c) => el("li", {}, el("div", { class: "name" }, `${c.asset} / ${c.check}`), el("div", { class: "sub" }, `${pick(c.expected)} · ${pick(c.found)}`))));
}

function card(c, report, chosen) {
  const tone = c.passed ? "ok" : c.severity === "ERROR" ? "bad" : "warn";
  const when = (s) => shanghai(s * 1000, { dateStyle: "medium", timeStyle: "medium" });
  const facts = [["report.expected", pick(c.expected)], ["report.found", pick(c.found)],
    ["report.checked", `${when(c.at_s)} · ${t("report.times", { failures: number(c.failures), times: number(c.times) })}`],
    ["report.since", c.changed_s > 0 ? when(c.changed_s) : t("report.since.first")]];
  if (!c.passed && pick(c.todo)) facts.push(["report.todo", pick(c.todo)]);
  const box = el("section", { class: `card check ${tone}${chosen ? " chosen" : ""}`, "data-check": c.check },
    el("h2", { class: "name" }, `${c.asset} / ${c.check}`, !c.passed && pick(c.title) ? `: ${pick(c.title)}` : "", el("span", { class: `chip ${tone}` }, t(`severity.${c.passed ? "passed" : c.severity.toLowerCase()}`))),
    el("dl", {}, ...facts.map(([key, value]) => el("div", {}, el("dt", {}, t(key)), el("dd", {}, value)))));
  if (c.worst.length) box.append(el("h3", {}, t("report.offenders")), el("div", { class: "scroll", tabindex: "0" }, offenders(c.worst, report.names)));
  if (/^[0-9a-f-]{36}$/.test(c.run_id)) box.append(el("a", { href: `${about.dagster}/runs/${c.run_id}`, target: "_blank", rel: "noreferrer" }, t("failed.run")));
  return box;
}

function offenders(rows, names) {
  const columns = Object.keys(rows[0]), named = columns.includes("symbol");
  const head = [...(named ? [t("report.symbol"), t("report.name")] : []), ...columns.filter((c) => c !== "symbol").map((c) => known(`column.${c}`, c.replaceAll("_", " ")))];
  return el("table", {}, el("thead", {}, el("tr", {}, ...head.map((h) => el("th", {}, h)))), el("tbody", {}, ...rows.map((row) => el("tr", {},
    ...(named ? [el("td", { class: "mono" }, ...linked(row.symbol ?? "")), el("td", {}, (row.symbol ?? "").split(CODE).map((s) => names[s] ?? "").filter(Boolean).join(", "))] : []),
    ...columns.filter((c) => c !== "symbol").map((c) => el("td", {}, row[c] ?? ""))))));
}

const WIDTH = 860, HEIGHT = 150;

// One line a series over the minutes of the day; the highest value at the left, some minutes below.
function plot({ name, lines, points }) {
  const svg = (tag, attributes, ...children) => { // el() makes HTML nodes
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const title = t(`plot.${name}`), box = el("section", { class: "card wide plot" }, el("h3", {}, title));
  if (!points.length) return box.append(el("p", { class: "sub" }, t("plot.nothing"))), box;
  const top = Math.max(...points.flatMap((p) => p.slice(1)), 0) || 1, last = points.length - 1;
  const x = (i) => 50 + (i * (WIDTH - 100)) / Math.max(last, 1), y = (value) => HEIGHT - 20 - (Math.max(value, 0) / top) * (HEIGHT - 45);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title }, svg("text", { x: 46, y: y(top) + 4, class: "end" }, number(top, 1)));
  for (const [n, line] of lines.entries()) {
    if (!points.some((p) => p[n + 1])) continue; // nothing of it on this day
    const way = points.map((p, i) => `${x(i)},${y(p[n + 1])}`).join(" ");
    drawing.append(svg("polyline", { class: `line${n}`, points: way }), svg("text", { x: 50 + 130 * n, y: 12, class: `line${n}` }, t(`plot.${line}`)));
  }
  for (const i of new Set([0, last >> 2, last >> 1, (3 * last) >> 2, last])) drawing.append(svg("text", { x: x(i), y: HEIGHT - 4, class: "middle" }, points[i][0]));
  box.append(drawing);
  return box;
}

async function drawPlots() {
  const reply = await fetch(`/api/report/plots?day=${encodeURIComponent(day)}`);
  if (!reply.ok) return; // the report above has said why
  const { plots, lowest, names } = await reply.json();
  const worst = lowest.length ? [el("section", { class: "card wide" }, el("h3", {}, t("report.lowest")), el("div", { class: "scroll", tabindex: "0" }, offenders(lowest, names)))] : [];
  fill($("plots"), [...plots.map(plot), ...worst]);
}

// One row may name several symbols that fail alike.
const linked = (text) => text.split(CODE).map((part) => (part.match(/^\d{6}\./) ? el("a", { href: `/#${part}` }, part) : part));

function make(job, key) {
  if (!unlocked()) return openLogin();
  change(`/api/days/${day}`, job, `${t(key)}: ${day}`, t(`${key}.text`), t(key), ({ run }) => follow(run));
}

async function follow(run) {
  const reply = await fetch(`/api/runs/${encodeURIComponent(run)}`);
  const found = await reply.json();
  if (!reply.ok) return notice(found.error);
  const words = t("report.progress", { status: known(`run.${found.status}`, found.status), done: found.done, steps: found.steps });
  fill($("progress"), [el("a", { href: `${about.dagster}/runs/${run}`, target: "_blank", rel: "noreferrer" }, words)]);
  if (ENDED.includes(found.status)) { await draw(); await drawPlots(); }
  else setTimeout(() => follow(run), 1000);
}

async function start() {
  about = await (await fetch("/api/about")).json();
  startTexts(about.texts);
  $("language").addEventListener("click", switchLanguage);
  startAccess(about.changes, notice);
  $("make").addEventListener("click", () => make("make_day", "report.make"));
  $("fill").addEventListener("click", () => make("reconcile_day", "report.fill"));
  await draw();
  await drawPlots();
}
start().catch((error) => notice(t("page.start", { error })));
