// The page: one event stream for the whole picture, one request a second for the quote. Text goes in as text, never as HTML.
import { drawQuote, startChart } from "./quote.js";
import { $, el, fill, number, shanghai, since } from "./dom.js";
import { change, openLogin, startAccess, unlocked } from "./access.js";
import { known, pick, startTexts, switchLanguage, t } from "./texts.js";
import { drawVerdict } from "./verdict.js";

let about = { dagster: "", changes: false, symbol: "000001.SZ" };
let clock = null;
let received = 0; // when the last picture came: performance.now(), which no change of the clock moves
let shown = null; // the last picture
let judged = 0;
let held = 0; // an answer to a click stays readable this long, whatever the next picture holds

function tick() {
  const quiet = performance.now() - received;
  const silent = quiet > 6000;
  if (shown && performance.now() - judged > 1000) {
    judged = performance.now();
    drawVerdict(shown, quiet);
  }
  $("link").className = `dot ${received === 0 ? "" : silent ? "bad" : "ok"}`;
  $("link").setAttribute("aria-label", t(silent ? "page.disconnected" : "page.connected"));
  if (!clock) return;
  const ms = clock.ms + (silent ? 0 : (Date.now() - clock.at) * clock.speed);
  $("time").textContent = shanghai(ms, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  $("date").textContent = shanghai(ms, { weekday: "short", year: "numeric", month: "short", day: "numeric" });
  if (silent) notice(t("page.retry"));
}

function notice(text, good = false) {
  if ($("notice").textContent !== text) $("notice").textContent = text; // live region: announce only what is new
  $("notice").hidden = !text;
  $("notice").className = good ? "notice good" : "notice";
}

function answer(text) {
  held = Date.now() + 8000;
  notice(text);
}

function draw(state) {
  received = judged = performance.now();
  shown = state;
  if (Date.now() > held) notice("");
  if (state.clock) {
    clock = { ...state.clock, at: Date.now() - Math.max(0, Date.now() - state.at_ms < 5000 ? Date.now() - state.at_ms : 0) };
    $("phase").textContent = t(state.clock.phase);
    $("speed").hidden = $("q-simulated").hidden = !state.clock.simulated;
    const reason = pick(state.clock.reason);
    $("speed").textContent = reason ? t("simulated.why", { reason }) : t("simulated", { speed: number(state.clock.speed, 1) });
  }
  if (state.feed) drawFeed(state.feed, state.clock, state.state?.last_final);
  if (state.minute) drawMinute(state.minute);
  if (state.worst) drawWorst(state.worst);
  drawServices(state.services || []);
  drawClients(state.clients || []);
  if (state.minutes) drawMinutes(state.minutes);
  drawDays(state.days || []);
  drawFailed(state.failed || []);
  drawVerdict(state);
  tick();
}

function drawFeed(feed, now, final) {
  $("rate").textContent = feed.alive ? number(feed.rate) : t("rate.silent");
  $("rate").className = feed.alive && (feed.rate > 0 || !now.in_session) ? "" : "bad";
  $("rate-sub").textContent = t("rate.sub", { symbols: number(feed.symbols), percent: number(feed.success_percent, 2) }) +
    (feed.rejected ? t("rate.rejected", { n: number(feed.rejected) }) : "");
  const late = feed.stored_p99_ms >= 10_000; // seconds read better
  $("delay").textContent = feed.stored_p99_ms < 0 ? "–" : late ? number(feed.stored_p99_ms / 1000, 1) : number(feed.stored_p99_ms);
  $("delay-unit").textContent = t(late ? "delay.s" : "delay.ms");
  $("delay").className = feed.stored_p99_ms > 1000 ? "warn" : "";
  $("delay-sub").textContent = t("delay.sub", { p50: number(Math.max(feed.stored_p50_ms, 0)), redis: number(feed.publish_p99_ms) }) +
    (feed.writer_lag ? t("delay.waiting", { n: number(feed.writer_lag) }) : "");
  $("published").textContent = feed.last_frame ? feed.last_frame.slice(-5) : "–";
  $("published-sub").textContent = feed.last_frame
    ? t("published.sub", { day: feed.last_frame.slice(0, 10), age: since(feed.bar_delay_ms / Math.max(now.speed, 1)), final: final ?? "–" }) : t("published.none");
  const values = feed.history.length > 1 ? feed.history : [feed.rate, feed.rate];
  const top = Math.max(...values, 1);
  const points = values.map((v, i) => `${(i * 240) / Math.max(values.length - 1, 1)},${34 - (v / top) * 31}`).join(" L");
  $("spark").querySelector(".line").setAttribute("d", `M${points}`);
  $("spark").querySelector(".area").setAttribute("d", `M0,36 L${points} L240,36 Z`);
}

function drawMinute(minute) {
  const { flowing, flowed, expected, never } = minute;
  $("minute-frame").textContent = minute.frame || "–";
  $("flowing").textContent = number(flowing);
  $("expected").textContent = t("minute.of", { n: number(expected) });
  $("minute-bar").value = expected ? flowing / expected : 0;
  // a minute fills as it goes; the one before shows whether something is missing
  const thin = expected && flowed && flowed / expected < 0.9;
  $("minute-bar").className = thin ? "low" : "";
  $("minute-sub").className = thin ? "sub warn" : "sub";
  $("minute-sub").textContent = (flowed ? t("minute.before", { percent: number((100 * flowed) / expected, 1) }) : "") + (never ? t("minute.never", { n: number(never) }) : "");
  fill($("flow"), minute.groups.map((g) => {
    const share = g.expected ? Math.max(g.flowing, g.flowed) / g.expected : 0;
    return el("tr", {}, el("td", {}, `${g.exchange} ${g.kind ? known(`kind.${g.kind}`, g.kind) : ""}`), el("td", { class: "n" }, number(Math.max(g.flowing, g.flowed))),
      el("td", { class: "n" }, number(g.expected)), el("td", { class: `n ${share < 0.9 ? "warn" : ""}` }, `${number(100 * share, 1)} %`));
  }));
}

function drawWorst(worst) {
  const why = (w) => w.why === "silent" ? (w.detail ? t("why.silent.since", { at: w.detail }) : t("why.silent.never")) : t(`why.${w.why}.text`, { n: number(w.n), detail: w.detail });
  const tones = { silent: "bad", rejected: "bad", thin: "warn", suspended: "" };
  fill($("worst"), worst.length ? worst.map((w) => el("li", {},
    el("div", {}, el("a", { class: "mono", href: `#${w.symbol}` }, w.symbol), ` ${w.name} `, el("span", { class: "sub" }, why(w))),
    el("span", { class: `chip ${tones[w.why]}` }, t(`why.${w.why}`)))) : [el("li", { class: "sub" }, t("worst.none"))]);
}

function drawServices(services) {
  fill($("services"), services.map((s) => {
    const tone = s.state === "running" ? "ok" : s.desired === "stopped" ? "" : s.state === "silent" ? "bad" : "warn";
    const shownState = s.state === "running" && s.desired === "stopped" ? "stopping" : s.state;
    const facts = [s.host, s.started_ms ? t("services.up", { age: since(Date.now() - s.started_ms) }) : "", s.memory_mb ? `${number(s.memory_mb)} MB` : "", s.error];
    const act = (action) => button(action, s.name, `/api/services/${s.name}`, action === "stop" ? t("act.stop.service") : "");
    return el("li", { "data-service": s.name },
      el("div", { class: "name" }, s.name, el("span", { class: `chip ${tone}` }, known(`state.${shownState}`, shownState))),
      el("div", { class: "sub" }, facts.filter(Boolean).join(" · ")),
      el("div", { class: "actions" }, ...(s.managed ? s.desired === "stopped" ? [act("start")] : [act("restart"), act("stop")] : [])));
  }));
}

function drawClients(clients) {
  $("no-clients").hidden = clients.length > 0;
  $("clients-count").textContent = clients.length ? t("clients.count", { n: clients.filter((c) => c.state === "running").length, of: clients.length }) : "";
  fill($("clients"), clients.map((c) => {
    const gone = c.state === "gone", tone = c.state === "running" ? "ok" : c.state === "down" ? "bad" : gone ? "" : "warn";
    const stopped = c.command === "stop" || c.state === "paused";
    const act = (action) => button(action, c.client_id, `/api/clients/${encodeURIComponent(c.client_id)}`, t(`act.${action}.client`));
    return el("tr", { "data-client": c.client_id },
      el("td", {}, el("span", { class: "name" }, c.client_id), el("span", { class: `chip ${tone}`, "data-state": c.state }, known(`state.${c.state}`, c.state))),
      el("td", {}, c.mode === "broadcast" || c.mode === "plain" ? c.mode : `${c.mode} · ${c.group}`),
      el("td", { class: "shards", title: c.shards.join(", ") }, c.shards.filter(Boolean).join(", ")),
      el("td", { class: `n ${c.lag_entries > 0 && c.state !== "running" ? "warn" : ""}` }, gone ? "–" : (c.lag_at_least ? "≥ " : "") + number(c.lag_entries)),
      el("td", { class: "n" }, gone ? "–" : since(c.lag_seconds * 1000)),
      el("td", { class: "n" }, gone ? "–" : number(c.pending)),
      el("td", { class: "n" }, t("clients.per.second", { n: number(c.rate, 1) })),
      el("td", { class: `n ${c.errors || c.dead ? "bad" : ""}`, title: c.last_error }, c.dead ? t("clients.dead", { n: number(c.errors), dead: number(c.dead) }) : number(c.errors)),
      el("td", {}, c.seen_seconds === null ? t("clients.never") : c.seen_seconds < 6 ? t("clients.now") : t("ago", { age: since(c.seen_seconds * 1000) })),
      el("td", {}, c.mode === "plain" || gone ? "" : act(stopped ? "start" : "stop")));
  }));
}

function drawMinutes(minutes) {
  const full = minutes.full, cells = minutes.cells;
  const last = cells.reduce((at, c, i) => (c[1] ? i : at), -1);
  fill($("minutes"), cells.map(([frame, bars, filled, history], i) => {
    const share = full ? bars / full : 0;
    // before the first trades of the day a minute is rightly thinner: the opening call holds fewer symbols
    const tone = i > last ? "later" : !bars ? "none" : share < 0.9 && i > 5 ? "low" : share < 0.97 ? "h1" : share < 0.995 ? "h2" : "h3";
    const text = i > last ? t("today.later", { frame }) : t("today.cell", { frame, bars: number(bars), filled: number(filled), history: number(history) });
    return el("span", { class: `c ${tone}${i === 121 ? " noon" : ""}`, title: text });
  }));
  $("today-sub").textContent = last < 0 ? t("today.none", { day: minutes.day })
    : t("today.sub", { day: minutes.day, n: cells.filter((c) => c[1]).length, symbols: number(full) });
}

// One column a week, one row a weekday; a cell opens the day's report.
function drawDays(days) {
  const monday = (day) => Math.floor((Date.parse(`${day}T00:00:00Z`) / 86_400_000 + 3) / 7);
  const first = days.length ? monday(days[0].day) : 0, fresh = !$("days").children.length;
  fill($("days"), days.map((d) => {
    const share = Number(d.share || 0);
    const running = clock && d.day === clock.day && clock.ms < Date.parse(`${d.day}T15:05:00+08:00`);
    const tone = Number(d.errors) ? "failed" : Number(d.warnings) ? "low" : running ? "now" : share >= 0.995 ? "h3" : share >= 0.97 ? "h2" : share > 0 ? "low" : "";
    const text = t("days.cell", Object.fromEntries(["bars", "symbols", "history", "checks", "errors", "warnings"].map((k) => [k, number(d[k])]).concat([["day", d.day]])));
    const weekday = new Date(`${d.day}T00:00:00Z`).getUTCDay();
    return el("a", { class: `${tone} w${monday(d.day) - first} d${weekday}`, href: `/report?day=${d.day}`, title: text },
      d.day.slice(5), el("b", {}, share > 0 ? `${number(Math.min(share, 1) * 100, 0)} %` : d.known ? "–" : "…"));
  }));
  if (fresh) $("days").scrollLeft = $("days").scrollWidth; // a narrow screen begins with the newest days
}

function drawFailed(checks) {
  $("failed-count").textContent = checks.length ? t("failed.count", { n: checks.length }) : "";
  if (!checks.length) return fill($("failed"), [el("li", {}, el("span", { class: "sub" }, t("failed.none")))]);
  fill($("failed"), checks.slice(0, 12).map((c) => el("li", {},
    el("div", { class: "name" }, `${c.asset} / ${c.check}`, el("span", { class: `chip ${c.severity === "ERROR" ? "bad" : "warn"}` }, t(`severity.${c.severity.toLowerCase()}`))),
    el("div", { class: "sub" }, t("failed.sub", { day: c.day_text, expected: pick(c.shown.expected), found: pick(c.shown.found) })),
    el("div", { class: "actions" },
      el("a", { href: `/report?day=${c.day_text}&asset=${encodeURIComponent(c.asset)}&check=${encodeURIComponent(c.check)}` }, t("failed.report"))))));
}

function button(action, name, path, text) {
  const label = t(`act.${action}`), node = el("button", { class: "quiet", type: "button" }, label);
  node.addEventListener("click", () => (unlocked() ? change(path, action, t("act.ask", { action: label, name }), text, label) : openLogin()));
  return node;
}

async function start() {
  about = await (await fetch("/api/about")).json();
  startTexts(about.texts);
  $("language").addEventListener("click", switchLanguage);
  $("dagster").href = about.dagster;
  startAccess(about.changes, answer);
  startChart(about.symbol);
  const source = new EventSource("/api/events");
  source.onmessage = (event) => draw(JSON.parse(event.data));
  setInterval(tick, 200);
  setInterval(() => document.hidden || drawQuote(), 1000);
}
start().catch((error) => notice(t("page.start", { error })));
