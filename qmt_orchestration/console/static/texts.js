// Every text of the page comes from the catalogue (qmt_orchestration/texts), in the language of the browser or of the switch.
const KEY = "qmt-language", ORDER = ["en", "zh"];
let texts = {};
export let language = "en";

export function startTexts(catalogue) {
  texts = catalogue;
  const chosen = localStorage.getItem(KEY) || navigator.language.slice(0, 2);
  language = ORDER.includes(chosen) ? chosen : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const [attribute, set] of [["t", (n, v) => { n.textContent = v; }], ["tLabel", (n, v) => n.setAttribute("aria-label", v)],
    ["tPlaceholder", (n, v) => n.setAttribute("placeholder", v)]]) {
    const name = `data-${attribute.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`;
    for (const node of document.querySelectorAll(`[${name}]`)) set(node, t(node.dataset[attribute]));
  }
}

export function switchLanguage() {
  localStorage.setItem(KEY, language === "zh" ? "en" : "zh");
  location.reload();
}

export function t(key, values = {}) {
  const text = texts[key]?.[ORDER.indexOf(language)] ?? key;
  return text.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
}

export const known = (key, otherwise) => (key in texts ? t(key) : otherwise); // a word that a service made up stays as it is
export const pick = (both) => both?.[language] ?? ""; // what the console says in both languages
