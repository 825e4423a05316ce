// The page: one event stream for the whole picture, one request a second for the quote. Text goes in as text, never as HTML.
import { drawQuote, startChart } from "./quote.js";
import { $, el, fill, number, since } from "./dom.js";
import { change, openLogin, startAccess, unlocked } from "./access.js";
import { drawVerdict } from "./verdict.js";

let about = { dagster: "", changes: false, symbol: "000001.SZ" };
let clock = null;
let heard = 0; // when the last picture came: performance.now(), which no change of the clock moves
let shown = null; // the last picture
let judged = 0;
let held = 0; // an answer to a click stays readable this long, whatever the next picture says

const shanghai = (ms, options) => new Intl.DateTimeFormat("en-GB", { timeZone: "Asia/Shanghai", ...options }).format(ms);

function tick() {
  const quiet = performance.now() - heard;
  const silent = quiet > 6000;
  if (shown && performance.now() - judged > 1000) {
    judged = performance.now();
    drawVerdict(shown, quiet);
  }
  $("link").className = `dot ${heard === 0 ? "" : silent ? "bad" : "ok"}`;
  $("link").setAttribute("aria-label", silent ? "no connection to the console" : "connected");
  if (!clock) return;
  const ms = clock.ms + (silent ? 0 : (Date.now() - clock.at) * clock.speed);
  $("time").textContent = shanghai(ms, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  $("date").textContent = shanghai(ms, { weekday: "short", year: "numeric", month: "short", day: "numeric" });
  if (silent) notice("The console does not answer. Trying again…");
}

function notice(text, good = false) {
  if ($("notice").textContent !== text) $("notice").textContent = text; // live region: speak only what is new
  $("notice").hidden = !text;
  $("notice").className = good ? "notice good" : "notice";
}

function answer(text) {
  held = Date.now() + 8000;
  notice(text);
}

function draw(state) {
  heard = judged = performance.now();
  shown = state;
  if (Date.now() > held) notice(state.error || state.minute_error || state.minutes_error || "");
  if (state.clock) {
    clock = { ...state.clock, at: Date.now() - Math.max(0, Date.now() - state.at_ms < 5000 ? Date.now() - state.at_ms : 0) };
    $("phase").textContent = state.clock.phase;
    $("speed").hidden = !state.clock.simulated;
    $("speed").textContent = `simulated × ${number(state.clock.speed, 1)}`;
  }
  if (state.feed) drawFeed(state.feed, state.clock);
  if (state.minute) drawMinute(state.minute);
  drawServices(state.services || []);
  drawClients(state.clients || []);
  if (state.minutes) drawMinutes(state.minutes);
  drawDays(state.days || []);
  drawFailed(state.failed || []);
  drawVerdict(state);
  tick();
}

function drawFeed(feed, now) {
  $("rate").textContent = feed.alive ? number(feed.rate) : "silent";
  $("rate").className = feed.alive && (feed.rate > 0 || !now.in_session) ? "" : "bad";
  $("rate-sub").textContent = `${number(feed.symbols)} symbols · ${number(feed.success_percent, 2)} % published` +
    (feed.rejected ? ` · ${number(feed.rejected)} set aside` : "");
  const late = feed.stored_p99_ms >= 10_000; // seconds read better
  $("delay").textContent = feed.stored_p99_ms < 0 ? "–" : late ? number(feed.stored_p99_ms / 1000, 1) : number(feed.stored_p99_ms);
  $("delay-unit").textContent = late ? "s p99" : "ms p99";
  $("delay").className = feed.stored_p99_ms > 1000 ? "warn" : "";
  $("delay-sub").textContent = `p50 ${number(Math.max(feed.stored_p50_ms, 0))} ms · to Redis p99 ${number(feed.publish_p99_ms)} ms` +
    (feed.writer_lag ? ` · ${number(feed.writer_lag)} batches waiting` : "") + (feed.lost ? ` · ${number(feed.lost)} batches LOST` : "");
  $("published").textContent = feed.last_frame ? feed.last_frame.slice(-5) : "–";
  $("published-sub").textContent = feed.last_frame
    ? `last closed minute of ${feed.last_frame.slice(0, 10)}, ${since(feed.bar_delay_ms / Math.max(now.speed, 1))} after its end` : "no minute has closed yet";
  const values = feed.history.length > 1 ? feed.history : [feed.rate, feed.rate];
  const top = Math.max(...values, 1);
  const points = values.map((v, i) => `${(i * 240) / Math.max(values.length - 1, 1)},${34 - (v / top) * 31}`).join(" L");
  $("spark").querySelector(".line").setAttribute("d", `M${points}`);
  $("spark").querySelector(".area").setAttribute("d", `M0,36 L${points} L240,36 Z`);
}

function drawMinute(minute) {
  const flowing = Number(minute.flowing), flowed = Number(minute.flowed), expected = Number(minute.expected);
  $("minute-frame").textContent = minute.frame || "–";
  $("flowing").textContent = number(flowing);
  $("expected").textContent = `of ${number(expected)} symbols`;
  $("minute-bar").value = expected ? flowing / expected : 0;
  // a minute fills as it goes; the one before tells whether something is missing
  const thin = expected && flowed && flowed / expected < 0.9;
  $("minute-bar").className = thin ? "low" : "";
  $("minute-sub").className = thin ? "sub warn" : "sub";
  $("minute-sub").textContent = flowed ? `minute before: ${number((100 * flowed) / expected, 1)} %` : "";
  $("missing").hidden = !minute.missing.length;
  $("missing").querySelector("summary").textContent = `${number(expected - Math.max(flowing, flowed))} quiet` + (Number(minute.never) ? `, ${number(minute.never)} not seen today` : "");
  fill($("missing").querySelector("ul"), minute.missing.map((m) =>
    el("li", {}, el("span", { class: "mono" }, m.symbol), ` ${m.name} · ${m.last}`)));
}

function drawServices(services) {
  fill($("services"), services.map((s) => {
    const tone = s.state === "running" ? "ok" : s.desired === "stopped" ? "" : s.state === "silent" ? "bad" : "warn";
    const told = s.state === "running" && s.desired === "stopped" ? "stopping" : s.state;
    const facts = [s.host, s.started_ms ? `up ${since(Date.now() - s.started_ms)}` : "", s.memory_mb ? `${number(s.memory_mb)} MB` : "", s.error];
    const act = (action) => button(action, () => change(`/api/services/${s.name}`, action, `${action} ${s.name}?`,
      action === "stop" ? "It flushes and ends; its agent will not start it again until it is started here." : ""));
    return el("li", { "data-service": s.name },
      el("div", { class: "name" }, s.name, el("span", { class: `chip ${tone}` }, told)),
      el("div", { class: "sub" }, facts.filter(Boolean).join(" · ")),
      el("div", { class: "actions" }, ...(s.managed ? s.desired === "stopped" ? [act("start")] : [act("restart"), act("stop")] : [])));
  }));
}

function drawClients(clients) {
  $("no-clients").hidden = clients.length > 0;
  $("clients-count").textContent = clients.length ? `${clients.filter((c) => c.state === "running").length} of ${clients.length} running` : "";
  fill($("clients"), clients.map((c) => {
    const tone = c.state === "running" ? "ok" : c.state === "down" ? "bad" : "warn";
    const stopped = c.command === "stop" || c.state === "paused";
    const act = (action, text) => button(action, () => change(`/api/clients/${encodeURIComponent(c.client_id)}`, action, `${action} ${c.client_id}?`, text));
    return el("tr", { "data-client": c.client_id },
      el("td", {}, el("span", { class: "name" }, c.client_id), el("span", { class: `chip ${tone}` }, c.state)),
      el("td", {}, c.mode === "broadcast" || c.mode === "plain" ? c.mode : `${c.mode} · ${c.group}`),
      el("td", { class: "shards", title: c.shards.join(", ") }, c.shards.filter(Boolean).join(", ")),
      el("td", { class: `n ${c.lag_entries > 0 && c.state !== "running" ? "warn" : ""}` }, (c.lag_at_least ? "≥ " : "") + number(c.lag_entries)),
      el("td", { class: "n" }, c.lag_seconds ? since(c.lag_seconds * 1000) : "0 s"),
      el("td", { class: "n" }, number(c.pending)),
      el("td", { class: "n" }, `${number(c.rate, 1)}/s`),
      el("td", { class: `n ${c.errors || c.dead ? "bad" : ""}`, title: c.last_error }, c.dead ? `${number(c.errors)} (${number(c.dead)} dead)` : number(c.errors)),
      el("td", {}, c.seen_seconds === null ? "never" : c.seen_seconds < 6 ? "now" : `${since(c.seen_seconds * 1000)} ago`),
      el("td", {}, c.mode === "plain" ? "" : stopped ? act("start", "It goes on where it stopped.") : act("stop", "It pauses after what it has in hand, and keeps its place.")));
  }));
}

function drawMinutes(minutes) {
  const full = minutes.full, cells = minutes.cells;
  const last = cells.reduce((at, c, i) => (c[1] ? i : at), -1);
  fill($("minutes"), cells.map(([frame, bars, filled, history], i) => {
    const share = full ? bars / full : 0;
    // before the first trades of the day a minute is honestly thinner: the opening call holds fewer symbols
    const tone = i > last ? "later" : !bars ? "none" : share < 0.9 && i > 5 ? "low" : share < 0.97 ? "h1" : share < 0.995 ? "h2" : "h3";
    const text = i > last ? `${frame}: not final yet` : `${frame}: ${number(bars)} bars, ${number(filled)} without a trade` + (history ? `, ${number(history)} from history` : "");
    return el("span", { class: `c ${tone}${i === 121 ? " noon" : ""}`, title: text });
  }));
  $("today-sub").textContent = last < 0 ? `${minutes.day} · no minute is final yet` : `${minutes.day} · ${last + 1} of 241 minutes final, ${number(full)} symbols`;
}

function drawDays(days) {
  fill($("days"), days.map((d) => {
    const share = Number(d.share || 0), failed = Number(d.errors) > 0;
    const running = clock && d.day === clock.day && clock.ms < Date.parse(`${d.day}T15:05:00+08:00`);
    const tone = failed ? "failed" : running ? "" : share >= 0.995 ? "h3" : share >= 0.97 ? "h2" : share > 0 ? "low" : "";
    const told = `${d.day}: ${number(d.bars)} bars of ${number(d.symbols)} symbols` + (Number(d.history) ? `, ${number(d.history)} from history` : "") +
      (Number(d.checks) ? `; ${number(d.checks)} checks, ${number(d.errors)} errors, ${number(d.warnings)} warnings` : "; no checks yet") + ". Open in Dagster to repair." + (running ? " The day is not over." : "");
    return el("a", { class: tone, href: `${about.dagster}/assets/bars_1m?view=partitions&partition=${d.day}`, target: "_blank", rel: "noreferrer", title: told },
      d.day.slice(5), el("b", {}, share > 0 ? `${number(Math.min(share, 1) * 100, share >= 0.9995 ? 0 : 1)} %` : d.known ? "–" : "…"));
  }));
}

function drawFailed(checks) {
  $("failed-count").textContent = checks.length ? `${checks.length} in the last 14 days` : "";
  if (!checks.length) return fill($("failed"), [el("li", {}, el("span", { class: "sub" }, "None in the last 14 days."))]);
  fill($("failed"), checks.slice(0, 12).map((c) => el("li", {},
    el("div", { class: "name" }, `${c.asset} · ${c.check.replaceAll("_", " ")}`, el("span", { class: `chip ${c.severity === "ERROR" ? "bad" : "warn"}` }, c.severity)),
    el("div", { class: "sub" }, `${c.day_text} · expected ${c.expected}, found ${c.found}`),
    el("div", { class: "actions" },
      el("a", { href: `${about.dagster}/assets/${c.asset}?view=checks&checkDetail=${encodeURIComponent(c.check)}`, target: "_blank", rel: "noreferrer" }, "Check ↗"),
      c.run_id ? el("a", { href: `${about.dagster}/runs/${c.run_id}`, target: "_blank", rel: "noreferrer" }, "Run ↗") : ""))));
}

function button(text, act) {
  const node = el("button", { class: "quiet", type: "button" }, text);
  node.addEventListener("click", () => (unlocked() ? act() : openLogin()));
  return node;
}

async function start() {
  about = await (await fetch("/api/about")).json();
  $("dagster").href = about.dagster;
  startAccess(about.changes, answer);
  startChart(about.symbol);
  const source = new EventSource("/api/events");
  source.onmessage = (event) => draw(JSON.parse(event.data));
  setInterval(tick, 200);
  setInterval(() => document.hidden || drawQuote(), 1000);
}
start().catch((error) => notice(`The page cannot start: ${error}`));
