// The verdict comes with each picture (console/verdict.py); that no picture comes any more is added here.
import { $, el, fill } from "./dom.js";
import { pick, t } from "./texts.js";

const OLD_MS = 6000, SHOWN = 9;

export function findings(state, silentMs = 0) {
  const old = silentMs > OLD_MS ? [{ tone: "bad", words: t("verdict.old", { part: t("part.redis"), age: Math.round(silentMs / 1000) }) }] : [];
  return [...old, ...(state.verdict?.findings ?? []).map((f) => ({ tone: f.tone, href: f.href, words: pick(f.text) }))];
}

export function drawVerdict(state, silentMs = 0) {
  const found = findings(state, silentMs);
  const tone = found.some((f) => f.tone === "bad") ? "bad" : found.length ? "warn" : state.verdict?.tone ?? "warn";
  const head = found.length === 1 ? t("head.one") : found.length ? t("head.several", { n: found.length }) : pick(state.verdict?.head);
  $("verdict").className = `verdict ${tone}`;
  if ($("verdict-head").textContent !== head) $("verdict-head").textContent = head; // live region: announce only what is new
  $("verdict-checked").textContent = pick(state.verdict?.checked);
  const items = found.slice(0, SHOWN).map((f) => el("li", { class: f.tone }, f.href ? el("a", { href: f.href }, f.words) : f.words));
  if (found.length > SHOWN) items.push(el("li", {}, t("verdict.more", { n: found.length - SHOWN })));
  fill($("verdict-list"), items);
  document.title = (found.length ? `(${found.length}) ` : "") + t("page.title");
}
