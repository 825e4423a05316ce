// Small helpers: nodes from text, a list redrawn only where it changed (so that focus and hover survive a redraw).
import { language, t } from "./texts.js";

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== ""));
  return node;
}

export function fill(parent, nodes) {
  nodes.forEach((node, i) => {
    const old = parent.children[i];
    if (!old) parent.append(node);
    else if (!old.isEqualNode(node)) {
      // the focus stays on a button whose row is drawn again
      const at = old.contains(document.activeElement) ? [...old.querySelectorAll("button, a")].indexOf(document.activeElement) : -1;
      old.replaceWith(node);
      if (at >= 0) node.querySelectorAll("button, a")[at]?.focus();
    }
  });
  while (parent.children.length > nodes.length) parent.lastElementChild.remove();
}

export function number(value, digits = 0) {
  return Number(value || 0).toLocaleString("en-US", { minimumFractionDigits: 0, maximumFractionDigits: digits });
}

export function since(ms) {
  const s = Math.max(ms / 1000, 0);
  if (s < 90) return t("age.seconds", { n: s < 10 ? s.toFixed(1) : Math.round(s) });
  if (s < 5400) return t("age.minutes", { n: Math.round(s / 60) });
  return s < 172800 ? t("age.hours", { n: Math.round(s / 3600) }) : t("age.days", { n: Math.round(s / 86400) });
}

// Always the market's time zone, whatever that of the visitor.
export const shanghai = (ms, options) =>
  new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en-GB", { timeZone: "Asia/Shanghai", hourCycle: "h23", ...options }).format(ms);
