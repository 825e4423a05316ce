// Quote search and today's candles. Frames are end labels; red is up, as on Chinese markets.
import { $, el, fill, number, shanghai } from "./dom.js";
import { t } from "./texts.js";

let touched = false, symbol = "", chart, candles, volumes, drawn = { symbol: "", day: "" }, asked = 0, chosen = -1;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const EAST = 8 * 3600; // the chart shows UTC: shift to Shanghai

export function startChart(first) {
  const { createChart, CandlestickSeries, HistogramSeries } = LightweightCharts;
  chart = createChart($("chart"), {
    autoSize: true, layout: { attributionLogo: false, background: { color: "transparent" }, fontFamily: "inherit" },
    rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.08, bottom: 0.26 } },
    timeScale: { timeVisible: true, secondsVisible: false, borderVisible: false, rightOffset: 4, maxBarSpacing: 18 }, handleScroll: { vertTouchDrag: false },
  });
  candles = chart.addSeries(CandlestickSeries, { borderVisible: false });
  volumes = chart.addSeries(HistogramSeries, { priceFormat: { type: "volume" }, priceScaleId: "", lastValueVisible: false, priceLineVisible: false });
  volumes.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
  for (const kind of ["wheel", "pointerdown"]) $("chart").addEventListener(kind, () => { touched = true; }, { passive: true });
  $("chart").addEventListener("dblclick", () => { touched = false; chart.timeScale().fitContent(); });
  paint();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { paint(); drawn.symbol = ""; drawQuote(); });
  startSearch();
  choose(decodeURIComponent(location.hash.slice(1)) || first);
  addEventListener("hashchange", () => choose(decodeURIComponent(location.hash.slice(1)) || first));
}

function paint() {
  chart.applyOptions({
    layout: { textColor: css("--soft") }, grid: { vertLines: { visible: false }, horzLines: { color: css("--line") } },
    crosshair: { vertLine: { labelBackgroundColor: css("--accent") }, horzLine: { labelBackgroundColor: css("--accent") } },
  });
  candles.applyOptions({ upColor: css("--up"), downColor: css("--down"), wickUpColor: css("--up"), wickDownColor: css("--down") });
}

function choose(next) {
  symbol = next.toUpperCase();
  $("symbol").value = "";
  $("found").hidden = true;
  $("symbol").setAttribute("aria-expanded", "false");
  history.replaceState(null, "", `#${symbol}`);
  drawQuote();
}

export async function drawQuote() {
  const wanted = symbol, turn = ++asked;
  let reply;
  try { reply = await fetch(`/api/quote?symbol=${encodeURIComponent(wanted)}`); } catch { return; }
  const q = await reply.json();
  if (wanted !== symbol || turn < asked - 2) return;
  if (!reply.ok) { $("q-symbol").textContent = wanted; $("q-name").textContent = ""; $("q-time").textContent = t("quote.none", { symbol: wanted }); return; }
  const tone = q.change > 0 ? "up" : q.change < 0 ? "down" : "";
  const sign = q.change > 0 ? "+" : q.change < 0 ? "−" : "";
  $("q-name").textContent = q.name;
  $("q-symbol").textContent = q.symbol;
  $("q-price").textContent = q.price.toFixed(2);
  $("q-price").className = tone;
  $("q-change").textContent = `${sign}${Math.abs(q.change).toFixed(2)}  ${sign}${Math.abs(q.change_percent).toFixed(2)} %`;
  $("q-change").className = tone;
  const facts = [["open", q.open.toFixed(2)], ["high", q.high.toFixed(2)], ["low", q.low.toFixed(2)], ["prev", q.pre_close.toFixed(2)],
    ["volume", `${number(q.vol / 10000, 1)} 万`], ["amount", `${number(q.amount / 1e8, 2)} 亿`]];
  if (q.bid.length && q.bid[0]) facts.push(["bid", `${q.bid[0].toFixed(2)} × ${number(q.bid_vol[0])}`], ["ask", `${q.ask[0].toFixed(2)} × ${number(q.ask_vol[0])}`]);
  fill($("q-facts"), facts.map(([name, value]) => el("div", {}, el("dt", {}, t(`quote.${name}`)), el("dd", {}, value))));
  const at = shanghai(q.time_ms, { dateStyle: "medium", timeStyle: "medium" });
  $("q-time").textContent = t("quote.time", { at, n: q.bars.length });
  $("chart").dataset.bars = q.bars.length;
  $("chart").dataset.symbol = q.symbol;
  drawBars(q);
}

function drawBars(q) {
  const bars = q.bars.map(([t, open, high, low, close]) => ({ time: t + EAST, open, high, low, close }));
  const vols = q.bars.map(([t, open, , , close, value]) => ({ time: t + EAST, value, color: (close >= open ? css("--up") : css("--down")) + "66" }));
  const same = drawn.symbol === q.symbol && drawn.day === q.day;
  candles.setData(bars);
  volumes.setData(vols);
  if (!same) touched = false;
  if (!touched) chart.timeScale().fitContent(); // the whole day, until the visitor zooms
  drawn = { symbol: q.symbol, day: q.day };
}

function startSearch() {
  let turn = 0;
  const found = () => [...$("found").children];
  const mark = (i) => {
    chosen = i;
    found().forEach((n, k) => n.setAttribute("aria-selected", k === i));
    $("symbol").setAttribute("aria-activedescendant", i < 0 ? "" : `found-${i}`);
  };
  $("symbol").addEventListener("input", async () => {
    const mine = ++turn, text = $("symbol").value;
    const list = text.trim() ? await (await fetch(`/api/search?q=${encodeURIComponent(text)}`)).json() : [];
    if (mine !== turn) return;
    $("found").replaceChildren(...list.map((i, k) => {
      const node = el("li", { id: `found-${k}`, role: "option", "aria-selected": "false", "data-symbol": i.symbol }, el("span", { class: "mono" }, i.symbol), el("span", {}, i.name));
      node.addEventListener("mousedown", (event) => { event.preventDefault(); choose(i.symbol); });
      return node;
    }));
    $("found").hidden = !list.length;
    $("symbol").setAttribute("aria-expanded", String(Boolean(list.length)));
    mark(list.length ? 0 : -1);
  });
  $("symbol").addEventListener("keydown", (event) => {
    const n = found().length;
    if (event.key === "ArrowDown" && n) { mark((chosen + 1) % n); event.preventDefault(); }
    if (event.key === "ArrowUp" && n) { mark((chosen + n - 1) % n); event.preventDefault(); }
    if (event.key === "Escape") $("found").hidden = true;
  });
  $("symbol").addEventListener("blur", () => { $("found").hidden = true; });
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const picked = $("found").hidden ? null : found()[chosen];
    choose(picked ? picked.dataset.symbol : $("symbol").value.trim() || "000001.SZ");
  });
}
