// One look: what is wrong, in words, worst first; or that nothing is.
import { $, el, fill, number, since } from "./dom.js";

const LATE_MS = 1000, BARS_LATE_MS = 5000, WAITING = 20, QUIET_SHARE = 0.02;

const OLD_MS = { redis: 6000 }, OLD_OTHERWISE_MS = 30_000;
const PARTS = { redis: "clock, services and clients", minute: "this minute", minutes: "the day's minutes", days: "the trading days", failed: "failed checks" };

// Parts of the page that were not read for too long: ages by the console's clock, plus the silence since its last picture.
export function stale(state, silentMs) {
  return Object.entries(state.read_ms || {})
    .map(([part, ms]) => ({ part, age: state.at_ms - ms + silentMs }))
    .filter(({ part, age }) => age > (OLD_MS[part] || OLD_OTHERWISE_MS))
    .map(({ part, age }) => ({ tone: "bad", text: `${PARTS[part] || part}: last read ${since(age)} ago` }));
}

export function troubles(state) {
  const { feed, clock, minute, services = [], clients = [], failed = [] } = state;
  const found = [];
  const say = (tone, text) => found.push({ tone, text });
  if (state.error) say("bad", state.error);
  for (const s of services) {
    if (s.desired === "running" && s.managed && s.state !== "running") say("bad", `${s.name} is ${s.state}`);
    else if (s.state === "running" && s.error) say("warn", `${s.name}: ${s.error}`);
  }
  if (feed && clock) {
    if (feed.alive && clock.in_session && !feed.rate) say("bad", "no ticks arrive");
    if (feed.lost) say("bad", `${number(feed.lost)} batches of ticks are lost`);
    if (clock.in_session && feed.stored_p99_ms > LATE_MS) say("warn", `ticks reach ClickHouse ${since(feed.stored_p99_ms)} late`);
    if (feed.writer_lag > WAITING) say("warn", `${number(feed.writer_lag)} batches wait for the writer`);
    const late = feed.bar_delay_ms / Math.max(clock.speed, 1); // seconds of the watcher, also in a faster market
    if (clock.in_session && late > BARS_LATE_MS) say("warn", `bars are published ${since(late)} after their minute`);
  }
  if (minute && clock && clock.in_session && Number(minute.flowed)) {
    const quiet = Number(minute.expected) - Math.max(Number(minute.flowed), Number(minute.flowing));
    if (quiet > QUIET_SHARE * Number(minute.expected)) say("warn", `${number(quiet)} of ${number(minute.expected)} symbols are quiet`);
  }
  for (const c of clients) {
    if (c.state === "down") say("warn", `client ${c.client_id} is down` + (c.lag_entries ? `, ${c.lag_at_least ? "≥ " : ""}${number(c.lag_entries)} bars behind` : ""));
    else if (c.dead) say("warn", `client ${c.client_id} gave up on ${number(c.dead)} bars`);
  }
  const today = failed.filter((c) => clock && c.day_text === clock.day && c.severity === "ERROR").length;
  if (today) say("bad", `${number(today)} ${today === 1 ? "check" : "checks"} of today failed`);
  return found.sort((a, b) => (a.tone === "bad" ? 0 : 1) - (b.tone === "bad" ? 0 : 1));
}

export function drawVerdict(state, silentMs = 0) {
  const found = [...stale(state, silentMs), ...troubles(state)], minute = state.minute;
  const calm = !state.clock ? "Waiting for the first picture" : !state.clock.in_session ? "Nothing needs a look: the market is not in session"
    : minute && Number(minute.expected) ? `All clear: ${number(Math.max(Number(minute.flowed), Number(minute.flowing)))} of ${number(minute.expected)} symbols flow` : "All clear";
  const head = found.length ? `${found.length === 1 ? "One thing needs" : `${found.length} things need`} a look` : calm;
  $("verdict").className = `verdict ${found.some((t) => t.tone === "bad") ? "bad" : found.length ? "warn" : "ok"}`;
  if ($("verdict-head").textContent !== head) $("verdict-head").textContent = head; // live region: speak only what is new
  fill($("verdict-list"), found.slice(0, 6).map((t) => el("li", { class: t.tone }, t.text)));
  document.title = found.length ? `(${found.length}) QMT console` : "QMT console";
}
