// The frame of the page: header, totals, the views and what opens over them.
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { computed, effect, signal } from "@preact/signals";
import { Problem, asks, away, back, call, caller, me, notice, open, opened, poll, query, readAt, resource, role, signOut, startPolling } from "./api.js";
import { Field, Form, Switch, button, choice, html, loadBar, loading, shift, submit } from "./parts.js";
import { duration, lang, moment, now, number, percent, speak, t, today } from "./text.js";

// A view is a module of views/ with its name. It gives `View`, a component, and `reads`: the resources that it shows.
// What opens over them is one too, with `path` and `title` instead: where it is read, and its heading.
const VIEWS = [
  { name: "operators", title: () => t("Operators"), role: "admin" },
  { name: "sources", title: () => t("Sources"), role: "admin" },
  { name: "queue", title: () => t("Queue"), role: "admin" },
  { name: "desk", title: () => t("My desk"), role: "operator" },
  { name: "contacts", title: () => t("Contacts") },
  { name: "leads", title: () => t("Leads") },
  { name: "duplicates", title: () => t("Duplicates"), role: "admin" },
  { name: "pictures", title: () => t("Pictures"), role: "admin" },
  { name: "subscriptions", title: () => t("Subscriptions"), role: "admin" },
  { name: "test", title: () => t("Test"), role: "admin" },
];
const views = computed(() => VIEWS.filter((view) => !view.role || view.role === role.value));
const place = signal("");
const view = computed(() => views.value.find(({ name }) => name === place.value) ?? views.value[0]);
const modules = signal({}); // those that were loaded, by name

async function load(name) {
  try {
    const module = modules.value[name] ?? await import(`./views/${name}.js`);
    if (!modules.value[name]) modules.value = { ...modules.value, [name]: module };
    return module;
  } catch (error) {
    if (error instanceof TypeError) throw new Problem(0, t("no answer")); // it was not fetched
    throw error;
  }
}

// --- what every view shows: of an operator's key just itself ---------------------------------------------------------

const totals = resource(() => query("stats/", today()));
const minutes = resource(() => {
  const gap = readAt.value ? Math.min(60, Math.floor((now() - readAt.value) / 60000) + 2) : 60;
  return `stats/timeline?minutes=${gap}`;
}, (before = new Map(), fresh) => {
  const all = new Map([...before].filter(([at]) => at > now() - 3660000));
  for (const { minute, contacts } of fresh) all.set(Date.parse(minute), contacts);
  return all;
});
// All contacts ever are those of today and those before, whose number stays: asked for once a day, after the first look.
const before = resource(() => (readAt.value && before.value?.until !== today().since ? query("stats/", { until: today().since }) : null),
  (_, { contacts }) => ({ until: today().since, contacts }));

async function shown() {
  const frame = role.value === "admin" ? [totals, minutes, before] : [me, (await load("desk")).fresh];
  const reads = [...frame, ...(await load(view.value.name)).reads()];
  if (!opened.value) return reads;
  const { kind, id, answer } = opened.value, { path } = await load(kind);
  answer.path = () => path(id);
  return [...reads, answer];
}

function Totals() {
  const { contacts, utilization, capacity, pending, oldest_pending_seconds, unassigned_share } = totals.value;
  const cell = (title, value, more, kind) => html`<div class="card"><dt>${title}</dt><dd class=${kind}>${value}${more && html` <small>${more}</small>`}</dd></div>`;
  return html`<dl class="totals">
    ${cell(t("Contacts today"), number(contacts), t("{0} in all", before.value ? number(before.value.contacts + contacts) : "…"))}
    ${cell(t("Load"), percent(utilization), t("{0} of {1}", number(Math.round(utilization * capacity)), number(capacity)), utilization >= 1 && "bad")}
    ${cell(t("Waiting"), number(pending), pending > 0 && t("the longest {0}", duration(oldest_pending_seconds)), pending > 0 && "warn")}
    ${cell(t("Of today's without operator"), percent(unassigned_share))}
    <${LastHour} />
  </dl>`;
}

function LastHour() {
  const last = Math.max(...minutes.value.keys());
  const counts = Array.from({ length: 60 }, (_, position) => minutes.value.get(last - (59 - position) * 60000) ?? 0);
  const most = Math.max(1, ...counts);
  const points = counts.map((count, position) => `${(position * 600) / 59},${100 - (96 * count) / most}`).join(" ");
  const text = t("Contacts per minute in the last hour: at most {0}, {1} in this minute", number(Math.max(...counts)), number(counts[59]));
  return html`<div class="card chart"><dt>${text}</dt><dd>
    <svg viewBox="0 0 600 100" preserveAspectRatio="none" role="img" aria-label=${text}>
      <polygon points="0,100 ${points} 600,100" /><polyline points=${points} /></svg></dd></div>`;
}

const Self = () => html`<div class="card line"><bdi class="name">${me.value.name}</bdi> ${shift(me.value)}
  ${loadBar(me.value)}<${Switch} id=${me.value.id} name=${me.value.name} active=${me.value.is_active} />
  ${button(t("My week"), () => open("shifts", me.value.id, me.value.name))}</div>`;

// --- the frame -------------------------------------------------------------------------------------------------------

function Header() {
  return html`<header><h1>Mini-CRM</h1>
    ${choice(html`<span class="unseen">${t("Language")}</span>`, { onchange: (event) => speak(event.target.value) }, [["en", "English"], ["ru", "Русский"]], lang.value)}
    <a href="docs">API</a>
    ${caller.value?.session && !asks.value && html`${button(t("Sessions"), () => open("sessions"))}${button(t("Sign out"), signOut)}`}</header>`;
}

/** How the service is, and how the last thing went that was done: in the window that is open, else on the page. */
function Messages() {
  return html`<div class="messages">
    <div role="status">
      ${away.value && html`<p class="notice bad">
        ${t("The service is away since {0} ({1}). Trying again every two seconds.", moment(away.value.since), away.value.why)}</p>`}
      ${!away.value && back.value && html`<p class="notice good">${t("The service is back.")}</p>`}</div>
    <div role="alert" class=${notice.value ? `notice line ${notice.value.kind}` : ""}>${notice.value && html`
      <span class="wide">${notice.value.text}</span>${button(t("Hide"), () => (notice.value = null))}`}</div></div>`;
}

function Navigation() {
  const nav = useRef();
  useEffect(() => nav.current.querySelector("[aria-current]").scrollIntoView({ block: "nearest" }), [view.value]); // on a phone
  return html`<nav ref=${nav} aria-label=${t("Views")}>${views.value.map(({ name, title }) => html`
    <a href="#${name}" aria-current=${name === view.value.name ? "page" : null}>${title()}${
      name === "queue" && totals.value.pending ? ` (${number(totals.value.pending)})` : ""}</a>`)}</nav>`;
}

function Main() {
  const { name, title } = view.value, module = modules.value[name];
  return html`<main key=${name} tabindex="-1"><h2>${title()}</h2>${module ? html`<${module.View} />` : loading()}</main>`;
}

function SignIn() {
  const enter = (fields) => call("POST", "session", fields).catch((problem) => {
    const msg = problem.status === 401 ? t("This key is not known.") : problem.message;
    throw new Problem(problem.status, [{ loc: ["key"], msg }]);
  });
  return html`<main><${Form} class="card form" work=${enter} then=${() => location.reload()}>
    <h2>${t("This service asks for a key")}</h2>
    <p class="quiet">${t("It is given once. This browser then stays signed in until 12 hours after the last use.")}</p>
    <${Field} text=${t("Key")} name="key" type="password" required pattern="[ -~]+" autocomplete="off" autofocus />${submit(t("Enter"))}<//></main>`;
}

function Opened() {
  const dialog = useRef(), { kind, id, name, answer } = (!asks.value && opened.value) || {};
  const module = modules.value[kind], content = module && answer.value;
  useEffect(() => {
    if (!kind) return dialog.current.close();
    if (!dialog.current.open) dialog.current.showModal();
    return document.getElementById("dialog-title").focus();
  }, [answer]);
  const closed = () => {
    if (asks.value) return; // it is opened again for who signs in
    const { name } = view.value, shown = location.hash.slice(1).split("/")[0];
    if (shown === name || !VIEWS.some((other) => other.name === shown)) history.replaceState(null, "", `#${name}`); // else a reload would open it again
    if (opened.value) opened.value = notice.value = null;
    if (document.activeElement === document.body) document.querySelector("main").focus(); // its row is gone
  };
  return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onclose=${closed}>${kind && html`<div key=${`${kind} ${id}`}>
    <div class="line"><h2 id="dialog-title" class="wide" tabindex="-1">${content ? module.title(content, name) : t("Reading…")}</h2>
      ${button("✕", () => dialog.current.close(), { "aria-label": t("Close this window") })}</div>
    <${Messages} />
    ${content && html`<${module.View} answer=${content} />`}</div>`}</dialog>`;
}

/** All below the header at once: what is below `Top` would else move away under a click when that comes. */
function App() {
  const [Top, isRead] = role.value === "admin" ? [Totals, totals.value] : [Self, me.value];
  return html`<div id="page" class=${away.value ? "away" : ""}>
    <${Header} />${!opened.value && html`<${Messages} />`}
    ${asks.value ? html`<${SignIn} />` : !isRead ? loading() : html`<${Top} /><${Navigation} /><${Main} />`}
  </div><${Opened} />`;
}

effect(() => {
  document.documentElement.lang = lang.value;
  const news = modules.value.desk?.fresh.value?.length;
  document.title = `${news ? `(${news}) ` : ""}${view.value.title()} – Mini-CRM`;
});
/** The address after #: a view, and a contact to be opened over it (as messages to people link to it): contacts/12. */
function go() {
  const [name, id] = location.hash.slice(1).split("/");
  place.value = name;
  if (name === "contacts" && /^\d+$/.test(id)) open("contact", id);
}
addEventListener("hashchange", () => {
  notice.value = null;
  go();
  poll(2);
});
document.body.textContent = "";
render(html`<${App} />`, document.body);
startPolling(shown);
go();
