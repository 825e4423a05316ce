// Who may change things: the token lives in sessionStorage of this tab and is sent in a header of each change.
import { $, el } from "./dom.js";
import { t } from "./texts.js";

const KEY = "qmt-console-token";
let changes = false;
let tell = () => {};

export const unlocked = () => Boolean(sessionStorage.getItem(KEY));

function dialog(id, title, ...content) {
  const form = el("form", { method: "dialog" }, el("h2", { id: `${id}-title` }, title), ...content);
  document.body.append(el("dialog", { id, "aria-labelledby": `${id}-title` }, form));
}

function addDialogs() {
  dialog("login", t("lock.unlock"), el("p", { class: "sub" }, t("login.text")),
    el("input", { id: "token", type: "password", autocomplete: "off", "aria-label": t("login.token"), required: "" }), el("p", { id: "login-error", class: "error", role: "alert" }),
    el("div", { class: "actions" }, el("button", { type: "button", id: "cancel", class: "quiet" }, t("login.cancel")), el("button", { id: "unlock" }, t("login.unlock"))));
  dialog("confirm", "", el("p", { class: "sub", id: "confirm-text" }),
    el("div", { class: "actions" }, el("button", { value: "no", class: "quiet" }, t("login.cancel")), el("button", { value: "yes", id: "confirm-yes" })));
}

export function startAccess(allowed, notice) {
  addDialogs();
  changes = allowed;
  tell = notice;
  $("lock").addEventListener("click", () => {
    if (unlocked()) { sessionStorage.removeItem(KEY); show(); } else openLogin();
  });
  $("cancel").addEventListener("click", () => $("login").close());
  $("login").querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const token = $("token").value;
    try {
      const reply = await send("/api/login", token);
      if (reply.ok) { sessionStorage.setItem(KEY, token); $("token").value = ""; $("login").close(); show(); }
      else $("login-error").textContent = await reason(reply);
    } catch (error) { $("login-error").textContent = t("not.sent", { error: error.message }); } // no connection, or no token that a header can carry
  });
  show();
}

function show() {
  $("lock").textContent = t(unlocked() ? "lock.lock" : changes ? "lock.unlock" : "lock.readonly");
  $("lock").title = changes ? "" : t("lock.hint");
}

export function openLogin() {
  if (!changes) return tell(t("lock.refused"));
  $("login-error").textContent = "";
  $("login").showModal();
  $("token").focus();
}

// Asks first; *done* gets what the console answers.
export function change(path, action, title, text, button, done = () => {}) {
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = button;
  $("confirm").returnValue = "no";
  $("confirm").showModal();
  $("confirm").onclose = async () => {
    if ($("confirm").returnValue !== "yes") return;
    let reply;
    try { reply = await send(path, sessionStorage.getItem(KEY), { action }); } catch (error) { return tell(t("not.sent", { error: error.message })); }
    if (reply.status === 401) { sessionStorage.removeItem(KEY); show(); openLogin(); }
    else if (!reply.ok) tell(await reason(reply));
    else done(reply.status === 200 ? await reply.json() : {});
  };
}

const send = (path, token, body) => fetch(path, {
  method: "POST", headers: { "Content-Type": "application/json", "X-Console-Token": token }, body: JSON.stringify(body ?? {}),
});

async function reason(reply) {
  try { return (await reply.json()).error; } catch { return `${reply.status} ${reply.statusText}`; }
}
