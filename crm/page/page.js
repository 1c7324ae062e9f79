"use strict";
// The live page. State -> a tree of nodes -> morphed into what is shown, so that focus and half-typed text survive.
// Whatever comes from the API becomes a text node or an attribute, never HTML.

// --- texts: English is the key; RU and EN are at the end of this file -------------------------------------------------
let lang = localStorage.getItem("crm-language");
if (lang !== "en" && lang !== "ru") lang = navigator.language.startsWith("ru") ? "ru" : "en";
const t = (text, ...values) =>
  ((lang === "ru" ? RU : EN)[text] ?? text).replace(/\{(\d)\}/g, (_, position) => values[position]);
const FORMATS = Object.fromEntries(["en", "ru"].map((name) => [name, { // made once: making one is slow
  number: new Intl.NumberFormat(name), percent: new Intl.NumberFormat(name, { style: "percent", maximumFractionDigits: 1 }),
  moment: new Intl.DateTimeFormat(name, { dateStyle: "short", timeStyle: "medium" }),
}]));
const number = (value) => FORMATS[lang].number.format(value);
const percent = (value) => FORMATS[lang].percent.format(value);
const moment = (text) => FORMATS[lang].moment.format(new Date(text));
function duration(seconds) {
  if (seconds < 60) return t("{0} s", Math.max(0, Math.floor(seconds)));
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return t("{0} min", minutes);
  return minutes < 2880 ? t("{0} h {1} min", Math.floor(minutes / 60), minutes % 60) : t("{0} days", Math.floor(minutes / 1440));
}

// --- nodes -----------------------------------------------------------------------------------------------------------

const EVENTS = ["onclick", "onsubmit", "onchange", "oninput"];
const SVG = new Set(["svg", "rect", "polyline", "polygon"]);
const present = (children) => [children].flat(9).filter((child) => child != null && child !== false);
function h(tag, properties, ...children) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (EVENTS.includes(name)) node[name] = value;
    else if (value != null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...present(children));
  return node;
}

/** A node for one of many things, which is built only when what it shows has changed; build: gives its children. */
function part(tag, key, shows, build, properties) {
  const node = h(tag, { ...properties, "data-key": key });
  return Object.assign(node, { version: JSON.stringify([lang, shows]), build });
}

function built(node) {
  for (const each of [node, ...(node.querySelectorAll?.("[data-key]") ?? [])]) {
    if (each.build) each.append(...present(each.build()));
    each.build = null;
  }
  return node;
}

/** Makes `old` like `fresh`, keeping the nodes that are there; children with the same data-key are the same. */
function morph(old, fresh) {
  if (fresh.version && (old.version === fresh.version || old.skipped)) return undefined; // skipped: out of sight
  if (old.nodeName !== fresh.nodeName) return old.replaceWith(built(fresh));
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return undefined;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const name of EVENTS) old[name] = fresh[name];
  if (fresh.build) built(fresh);
  old.version = fresh.version;
  const wanted = new Set([...fresh.children].map((child) => child.dataset.key));
  for (const child of [...old.children]) if (child.dataset.key && !wanted.has(child.dataset.key)) child.remove();
  const kept = new Map([...old.children].map((child) => [child.dataset.key, child]));
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const same = child.dataset?.key ? kept.get(child.dataset.key) : at?.dataset?.key ? null : at;
    if (!same) old.insertBefore(built(child), at);
    else if (same === at) at = at.nextSibling;
    else old.insertBefore(same, at);
    if (same) morph(same, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
  return undefined;
}

const button = (text, onclick, properties) => h("button", { type: "button", onclick, ...properties }, t(text));
const submit = (text) => h("button", { class: "main" }, t(text));
const of = (text, what) => ({ "aria-label": `${t(text)}: ${what}` }); // tells apart what is there once for each row
const chip = (text, kind) => h("span", { class: `chip ${kind}` }, text);
const field = (text, properties, tag = "input") => h("label", null, t(text), h(tag, properties));
const limit = (value) => ({ name: "max_load", type: "number", min: 0, max: 100000, required: true, value });
const choice = (text, properties, options, chosen) =>
  h("label", null, t(text), h("select", properties, options.map(([value, label]) =>
    h("option", { value, "data-key": value || "none", selected: String(value) === String(chosen ?? "") }, label))));

/** part: 0 to 1. value: what a screen reader says. */
const bar = (part, kind, label, value) =>
  h("svg", { class: `bar ${kind}`, viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "meter", "aria-label": label,
    "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(100 * part), "aria-valuetext": value },
    h("rect", { width: 100 * Math.min(1, part), height: 10 }));
const loadBar = ({ load, max_load }) => [
  bar(load / Math.max(1, max_load), load >= max_load ? "full" : load >= 0.8 * max_load ? "nearly" : "",
    t("Load"), t("{0} of {1}", load, max_load)),
  h("span", null, t("{0} of {1}", number(load), number(max_load))),
];

// --- the service -----------------------------------------------------------------------------------------------------

const state = {
  role: "admin", data: {}, minutes: new Map(), drafts: new Map(), filter: {}, limit: 50, search: "", period: "today",
  open: null, away: null, back: 0, notice: null, actedAt: 0, still: {}, key: sessionStorage.getItem("crm-key"), skew: 0,
};
const now = () => Date.now() + state.skew; // by the service's clock

class Problem extends Error {
  constructor(status, detail) {
    const text = Array.isArray(detail) ? detail.map(({ loc, msg }) => `${loc.at(-1)}: ${msg}`).join("; ") : detail;
    super(text?.replaceAll(/(lead_\w+): \1 /g, "$1 ") || t("error {0}", status));
    this.status = status;
  }
}

/** Raises Problem; its status is 0 when nobody answered. age: seconds that the answer may be old. */
async function call(method, path, body, age) {
  const headers = state.key ? { "X-API-Key": state.key } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (age) headers["Cache-Control"] = `max-age=${age}`;
  let answer, content;
  try {
    const signal = AbortSignal.timeout(15000);
    answer = await fetch(path, { method, headers, body: body === undefined ? null : JSON.stringify(body), signal });
    content = await answer.text();
  } catch {
    throw new Problem(0, t("no answer"));
  }
  const date = Date.parse(answer.headers.get("Date"));
  if (Math.abs(date + 500 - now()) > 2000) state.skew = date + 500 - Date.now();
  try {
    content = content && JSON.parse(content);
  } catch {
    throw new Problem(answer.ok ? 0 : answer.status, t("no answer of this service"));
  }
  if (!answer.ok) throw new Problem(answer.status, content.detail);
  return content;
}

function query(path, values) {
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return `${path}?${new URLSearchParams(pairs)}`;
}

function today() {
  const [since, until] = [0, 1].map((days) => new Date(new Date(now()).setHours(24 * days, 0, 0, 0)).toISOString());
  return { since, until };
}

const contactsOf = (filter) => query("contacts/", { limit: state.limit, ...filter });
const OPERATORS = () => ({ operators: query("stats/operators", today()) });
const NEEDS = { // what each view shows, and where it is read
  operators: OPERATORS,
  sources: () => ({ ...OPERATORS(), sources: "sources/?limit=1000",
    shares: query("stats/sources", state.period === "today" ? today() : {}) }),
  queue: () => ({ ...OPERATORS(), queue: "contacts/?order=queue&limit=100" }),
  contacts: () => state.role === "admin"
    ? { ...OPERATORS(), sources: "sources/?limit=1000", contacts: contactsOf(state.filter) }
    : { contacts: contactsOf(state.filter) },
  leads: () => state.role === "admin" ? OPERATORS() : {},
  test: () => ({ sources: "sources/?limit=1000" }),
  desk: () => ({ new: contactsOf({ status: "new" }), in_progress: contactsOf({ status: "in_progress" }) }),
};
const VIEWS = { admin: ["operators", "sources", "queue", "contacts", "leads", "test"], operator: ["desk", "contacts", "leads"] };
const view = () => {
  const named = location.hash.slice(1);
  return VIEWS[state.role].includes(named) ? named : VIEWS[state.role][0];
};

/** What every view shows: of an operator's key just itself. Gives what is to be done when it is still wanted. */
async function readFrame(age) {
  if (state.role === "operator") {
    const [me] = await call("GET", "operators/", undefined, age);
    return () => { state.data.me = me; };
  }
  const gap = state.readAt ? Math.min(60, Math.floor((now() - state.readAt) / 60000) + 2) : 60;
  const day = today();
  const reads = [query("stats/", day), `stats/timeline?minutes=${gap}`];
  // All contacts ever are those of today and those before, whose number stays: asked for once a day, after the first look.
  if (state.readAt && state.before?.until !== day.since) reads.push(query("stats/", { until: day.since }));
  const [totals, minutes, before] = await Promise.all(reads.map((path) => call("GET", path, undefined, age)));
  return () => {
    state.data.totals = totals;
    for (const { minute, contacts } of minutes) state.minutes.set(Date.parse(minute), contacts);
    for (const at of state.minutes.keys()) if (at < now() - 3660000) state.minutes.delete(at);
    if (before) state.before = { until: day.since, contacts: before.contacts };
    state.readAt = now();
  };
}

const OPENED = { contact: (id) => `contacts/${id}`, lead: (id) => `leads/${id}`, candidates: (id) => `sources/${id}/candidates` };
let timer, turn = 0;
/** Reads what is shown and shows it; then again in two seconds, while somebody can see it. */
async function poll(age) {
  clearTimeout(timer);
  const own = ++turn;
  if (Date.now() - state.actedAt < 4000) age = undefined; // else one's own change could be missing again for a moment
  try {
    const needs = { ...NEEDS[view()]() };
    if (state.open) needs.opened = OPENED[state.open.kind](state.open.id);
    const [frame, ...answers] = await Promise.all([readFrame(age), ...Object.values(needs).map((path) => call("GET", path, undefined, age))]);
    if (own !== turn) return;
    frame();
    Object.keys(needs).forEach((name, position) => (state.data[name] = answers[position]));
    if (state.away) state.back = Date.now();
    state.away = null;
  } catch (problem) {
    if (own !== turn) return;
    refused(problem);
  } finally {
    if (own === turn && !document.hidden && !state.asks) timer = setTimeout(poll, 2000, 2);
  }
  if (own === turn) show();
}

function refused(problem) {
  const { status } = problem;
  if (status === 403 && state.role === "admin" && state.key) {
    state.role = "operator"; // perhaps: then it is shown its desk, and else asked for another key
    poll();
  } else if (status === 401 || status === 403) {
    state.asks = status === 401 || Boolean(state.key);
    state.away = null;
    state.notice = status === 403 ? bad(problem.message) : state.key ? bad(t("This key is not known.")) : null;
  } else if (status === 404 && state.open) {
    state.open = null;
    state.notice = bad(problem.message);
  } else if ([0, 502, 503, 504].includes(status)) {
    state.away = { since: state.away?.since ?? new Date().toISOString(), why: problem.message };
  } else {
    state.notice = bad(problem.message); // the next poll may go better; what is no Problem is a fault of this page
  }
}

const bad = (text) => ({ kind: "bad", text: said(text) });
let busy = false;
/** Does what a person asked for, but not twice at once; says how it went, and reads all afresh.
 *  text: what is said then, or makes it of the answer. done: is called before all is read. */
async function act(work, text, done) {
  if (busy) return;
  busy = true;
  state.notice = null;
  try {
    const answer = await work();
    state.notice = answer === CANCELLED ? null : { kind: "good", text: typeof text === "function" ? text(answer) : t(text) };
    if (answer !== CANCELLED) done?.();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    state.notice = bad(problem.status ? problem.message : t("No answer: it may be done or not."));
  } finally {
    state.actedAt = Date.now();
    busy = false;
  }
  await poll();
}
const CANCELLED = Symbol("cancelled");

/** An onsubmit that gives the fields to `work`, and empties the form when it went well. */
const onsubmit = (work, text) => (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  return act(() => work(Object.fromEntries(new FormData(form))), text, () => form.reset());
};

function open(kind, id, name) {
  Object.assign(state, { open: { kind, id, name }, notice: null });
  state.data.opened = null;
  show();
  document.getElementById("dialog-title").focus();
  poll();
}

// --- the frame -------------------------------------------------------------------------------------------------------

const TITLES = { operators: "Operators", sources: "Sources", queue: "Queue", contacts: "Contacts", leads: "Leads", test: "Test", desk: "My desk" };
function show() {
  document.documentElement.lang = lang;
  document.title = `${t(TITLES[view()])} – Mini-CRM`;
  const page = h("div", { id: "page", class: state.away ? "away" : "" }, header(), state.asks ? askForKey() : body());
  morph(document.getElementById("page"), page);
  const dialog = document.getElementById("dialog");
  const content = state.open && !state.asks ? opened() : null;
  if (content) morph(dialog, h("dialog", { id: "dialog", "aria-labelledby": "dialog-title", open: dialog.open }, content));
  if (content && !dialog.open) dialog.showModal();
  if (!content && dialog.open) dialog.close();
}

const header = () => [
  h("header", null, h("h1", null, "Mini-CRM"),
    choice("Language", { onchange: (event) => { lang = event.target.value; localStorage.setItem("crm-language", lang); show(); } },
      [["en", "English"], ["ru", "Русский"]], lang),
    h("a", { href: "docs" }, "API"),
    state.key && !state.asks && button("Forget key", forget)),
  state.open ? null : messages(),
];

/** How the service is, and how the last thing went that was done: in the window that is open, else on the page. */
const messages = () => h("div", { class: "messages", "data-key": "messages" },
  h("div", { role: "status" },
    state.away && h("p", { class: "notice bad" },
      t("The service is away since {0} ({1}). Trying again every two seconds.", moment(state.away.since), state.away.why)),
    !state.away && Date.now() - state.back < 8000 && h("p", { class: "notice good" }, t("The service is back."))),
  h("div", { role: "alert", class: state.notice ? `notice line ${state.notice.kind}` : "" }, state.notice && [
    h("span", { class: "wide" }, state.notice.text), button("Hide", () => { state.notice = null; show(); })]));
function forget() {
  sessionStorage.removeItem("crm-key");
  location.reload(); // nothing of what one key saw is left for the next
}

const askForKey = () => h("main", null, h("form", { class: "card form", onsubmit: (event) => {
  event.preventDefault();
  sessionStorage.setItem("crm-key", new FormData(event.currentTarget).get("key"));
  location.reload();
} }, h("h2", null, t("This service asks for a key")), h("p", null, t("It is kept for this tab only.")),
  field("Key", { name: "key", type: "password", required: true, pattern: "[ -~]+", autocomplete: "off", autofocus: true }), submit("Enter")));
const body = () => [
  state.role === "admin" ? totals() : self(),
  h("nav", { "aria-label": t("Views") }, VIEWS[state.role].map((name) =>
    h("a", { href: `#${name}`, "aria-current": view() === name && "page" }, t(TITLES[name]),
      name === "queue" && state.data.totals?.pending ? ` (${number(state.data.totals.pending)})` : ""))),
  h("main", { "data-key": view(), tabindex: -1 }, h("h2", null, t(TITLES[view()])), SHOWN[view()]()),
];
function totals() {
  const { totals } = state.data;
  if (!totals) return h("p", null, t("Reading…"));
  const cell = (title, value, more, kind) =>
    h("div", { class: "card" }, h("dt", null, t(title)), h("dd", { class: kind }, value, more && [" ", h("small", null, more)]));
  return h("dl", { class: "totals" },
    cell("Contacts today", number(totals.contacts), t("{0} in all", state.before ? number(state.before.contacts + totals.contacts) : "…")),
    cell("Load", percent(totals.utilization), t("{0} of {1}", number(Math.round(totals.utilization * totals.capacity)), number(totals.capacity)), totals.utilization >= 1 && "bad"),
    cell("Waiting", number(totals.pending), totals.pending > 0 && t("the longest {0}", duration(totals.oldest_pending_seconds)), totals.pending > 0 && "warn"),
    cell("Of today's without operator", percent(totals.unassigned_share)),
    chart());
}

function chart() {
  const last = Math.max(...state.minutes.keys());
  const counts = Array.from({ length: 60 }, (_, position) => state.minutes.get(last - (59 - position) * 60000) ?? 0);
  const most = Math.max(1, ...counts);
  const points = counts.map((count, position) => `${(position * 600) / 59},${100 - (96 * count) / most}`).join(" ");
  const said = t("Contacts per minute in the last hour: at most {0}, {1} in this minute", number(Math.max(...counts)), number(counts[59]));
  return h("div", { class: "card chart" }, h("dt", null, said), h("dd", null,
    h("svg", { viewBox: "0 0 600 100", preserveAspectRatio: "none", role: "img", "aria-label": said },
      h("polygon", { points: `0,100 ${points} 600,100` }), h("polyline", { points }))));
}

const self = () => state.data.me && h("div", { class: "card line" }, h("bdi", { class: "name" }, state.data.me.name),
  h("div", { class: "wide" }, loadBar(state.data.me)), switchOf(state.data.me.id, state.data.me.is_active));
const switchOf = (id, active) => h("button", { type: "button", role: "switch", "aria-checked": String(active), ...of("Active", nameOf(id)),
  onclick: () => act(() => call("PATCH", `operators/${id}`, { is_active: !active }), active ? "Switched off" : "Switched on") }, t("Active"));

// --- the views -------------------------------------------------------------------------------------------------------

const empty = (rows, text) => rows.length === 0 && h("p", { class: "quiet" }, t(text));
const rows = (items, row, none) => [empty(items, none), h("ul", { class: "rows" }, items.map(row))];
const nameOf = (id) => state.data.operators?.find((row) => row.operator_id === id)?.operator_name
  ?? (state.data.me?.id === id ? state.data.me.name : t("operator {0}", id));
const leadName = (lead) => lead.name ?? lead.phones[0] ?? lead.emails[0] ?? lead.external_ids[0] ?? t("lead {0}", lead.id);
const operatorOptions = () => (state.data.operators ?? []).map((row) =>
  [row.operator_id, `${row.operator_name} (${t("{0} of {1}", row.load, row.max_load)}${row.is_active ? "" : `, ${t("off")}`})`]);
const SHOWN = {
  operators: () => [
    h("form", { class: "card line", onsubmit: onsubmit(
      ({ name, max_load }) => call("POST", "operators/", { name, max_load: Number(max_load) }), "Operator added") },
      field("Name", { name: "name", required: true, maxlength: 100 }), field("Limit", limit(10)), submit("Add operator")),
    rows(state.data.operators ?? [], operatorRow, "No operators yet: add one here."),
  ],
  sources: () => [
    h("form", { class: "card line", onsubmit: onsubmit(
      ({ name, bot_id }) => call("POST", "sources/", { name, bot_id: bot_id || null }), "Source added") },
      field("Source name", { name: "name", required: true, maxlength: 100 }), field("Bot id", { name: "bot_id", maxlength: 100 }), submit("Add source")),
    h("div", { class: "line" }, choice("Shares of contacts", { onchange: (event) => { state.period = event.target.value; poll(); } },
      [["today", t("today")], ["all", t("of all time")]], state.period),
      h("span", { class: "quiet" }, t("Thin bar: by weight. Thick bar: what came out."))),
    empty(state.data.shares ?? [], "No sources yet: add one here."),
    h("div", { class: "cards" }, (state.data.shares ?? []).map(sourceCard)),
  ],
  queue: () => rows(state.data.queue ?? [], (contact, position) => h("li", { "data-key": contact.id },
    h("span", { class: "fixed" }, `${position + 1}. `, h("strong", null, duration((now() - Date.parse(contact.created_at)) / 1000))),
    contactTitle(contact), assignment(contact)),
    "Nobody waits."),
  contacts: () => [
    h("div", { class: "card line" },
      filterBy("Status", "status", ["pending", "new", "in_progress", "closed"].map((status) => [status, t(status)])),
      state.role === "admin" && [
        filterBy("Source", "source_id", (state.data.sources ?? []).map((source) => [source.id, source.name])),
        filterBy("Operator", "operator_id", operatorOptions())]),
    newest("contacts"),
    state.data.contacts?.length === state.limit && state.limit < 1000
      && button("Show more", () => { state.limit = Math.min(1000, state.limit + 50); poll(); }),
  ],
  leads: () => [
    h("form", { class: "card line", role: "search", onsubmit: (event) => {
      event.preventDefault();
      findLeads(new FormData(event.currentTarget).get("q").trim());
    } }, field("Name, phone, e-mail or id", { name: "q", type: "search", maxlength: 255, value: state.search }), submit("Search")),
    state.data.leads && rows(state.data.leads, (lead) => part("li", lead.id, lead, () => [
      h("div", { class: "wide" }, h("button", { class: "link name", type: "button", onclick: () => open("lead", lead.id) }, h("bdi", null, leadName(lead))),
        identifiers(lead)),
      h("span", null, t("contacts: {0}", number(lead.contacts_count)))]), "No lead found."),
  ],
  test: () => !state.data.sources ? h("p", null, t("Reading…")) : h("form", { class: "card form", onsubmit: onsubmit(sendTest, (contact) => [contact.operator
    ? t("Contact {0}: {1} got it.", contact.id, contact.operator.name) : t("Contact {0}: nobody has room, it waits.", contact.id),
    contact.identity_note && said(contact.identity_note)].filter(Boolean).join(" ")) },
    choice("Source", { name: "source_id", required: true }, (state.data.sources ?? []).map((source) => [source.id, source.name])),
    field("Messenger id", { name: "lead_external_id", maxlength: 255, value: "test:1" }), field("Phone", { name: "lead_phone", maxlength: 255 }),
    field("E-mail", { name: "lead_email", maxlength: 255 }), field("Name", { name: "lead_name", maxlength: 255 }),
    field("Message", { name: "message", maxlength: 10000, rows: 3 }, "textarea"),
    field("Priority (0-9)", { name: "priority", type: "number", min: 0, max: 9, value: 0, required: true }), submit("Send")),
  desk: () => ["new", "in_progress"].map((status) =>
    [h("h3", null, t(status)), newest(status)]),
};

/** Contacts, newest first. Under the pointer the list stands still: what is new comes in when it has left. */
function newest(name) {
  const contacts = state.data[name] ?? [];
  const shown = document.querySelector(`main > [data-key="${name}"]:hover`) ? state.still[name] : contacts[0]?.id;
  state.still[name] = shown;
  const late = contacts.filter((contact) => contact.id > shown).length;
  return h("div", { "data-key": name }, late > 0 && h("p", { class: "quiet" }, t("new meanwhile: {0}", late)),
    rows(contacts.filter((contact) => !(contact.id > shown)), contactRow, "No contacts."));
}

const operatorRow = (row) => part("li", row.operator_id, row, () => [
  h("span", { class: "wide" }, h("bdi", { class: "name" }, row.operator_name), " ", !row.is_active && chip(t("off"), "quiet")),
  h("div", { class: "wide" }, loadBar(row)),
  h("span", { class: "fixed" }, t("today: {0}", number(row.total_contacts))),
  h("div", { class: "line" },
    switchOf(row.operator_id, row.is_active),
    h("form", { class: "line", onsubmit: onsubmit(
      ({ max_load }) => call("PATCH", `operators/${row.operator_id}`, { max_load: Number(max_load) }), "Limit changed") },
      field("Limit", { ...limit(row.max_load), ...of("Limit", row.operator_name) }), h("button", of("Set", row.operator_name), t("Set"))),
    button("Release", () => confirm(t("Release {0}? All open contacts go to others or back to the queue.", row.operator_name))
      && act(() => call("POST", `operators/${row.operator_id}/release`),
        (answer) => t("Released: {0}. To others: {1}, back to the queue: {2}.", answer.released, answer.reassigned, answer.pending)),
    of("Release", row.operator_name)))]);
function sourceCard(row) {
  const draft = state.drafts.get(row.source_id);
  const source = state.data.sources?.find((one) => one.id === row.source_id);
  const assigned = row.operators.reduce((sum, entry) => sum + entry.contacts, 0);
  const shares = row.operators.map((entry) => ({ ...entry, ...markOf(entry, assigned) }));
  return part("section", row.source_id, [row, shares, source, draft && [[...draft], operatorOptions()]], () => [
    h("div", { class: "line" }, h("h3", null, h("bdi", null, row.source_name)), source?.bot_id && h("bdi", { class: "quiet" }, source.bot_id),
      h("span", { class: "end" }, t("contacts: {0}", number(row.total_contacts))),
      row.pending > 0 && chip(t("waiting: {0}", number(row.pending)), "warn")),
    draft ? weightsForm(row, draft) : [
      row.operators.length === 0 && h("p", { class: "quiet" }, t("Nobody serves this source: its contacts wait.")),
      shares.map(share),
      h("div", { class: "line" },
        source && button("Edit weights", () => {
          state.drafts.set(row.source_id, new Map(source.operators.map((entry) => [entry.operator_id, String(entry.weight)])));
          show();
        }),
        button("Who gets the next one?", () => open("candidates", row.source_id, row.source_name)))]], { class: "card" });
}

/** What keeps the shares from following the weights: a difference that chance alone makes once in some hundred times. */
function markOf({ target_share, actual_share, operator_id, weight }, assigned) {
  const row = state.data.operators?.find((one) => one.operator_id === operator_id);
  const why = row && !row.is_active ? t("off") : row && row.load >= row.max_load ? t("full, {0} of {1}", row.load, row.max_load) : null;
  const chance = 3 * Math.sqrt((target_share * (1 - target_share)) / Math.max(1, assigned)) + 1 / Math.max(1, assigned);
  if (Math.abs(actual_share - target_share) <= chance) return { mark: weight > 0 && why, kind: "quiet" };
  return { kind: "warn", mark: actual_share < target_share ? t("▼ less than by weight: {0}", why ?? t("limits, absence or changed weights"))
    : t("▲ more than by weight: others were full or off, or weights changed") };
}

const share = (entry) => h("div", { class: "share" }, h("div", null, h("bdi", null, entry.operator_name), " ", h("small", { class: "quiet" }, t("weight {0}", number(entry.weight)))),
  h("div", { class: "bars" },
    bar(entry.target_share, "target", t("Share by weight of {0}", entry.operator_name), percent(entry.target_share)),
    bar(entry.actual_share, "actual", t("Actual share of {0}", entry.operator_name), percent(entry.actual_share))),
  h("small", null, percent(entry.target_share), h("br"), h("strong", null, percent(entry.actual_share))),
  entry.mark && h("small", { class: `mark chip ${entry.kind}` }, entry.mark));
function weightsForm(row, draft) {
  const valueOf = (text) => Number(text.replace(",", "."));
  const total = [...draft.values()].reduce((sum, text) => sum + (valueOf(text) || 0), 0);
  const done = () => { state.drafts.delete(row.source_id); show(); };
  const others = operatorOptions().filter(([id]) => !draft.has(id));
  return h("form", { onsubmit: (event) => {
    event.preventDefault();
    const entries = [...draft].map(([operator_id, text]) => ({ operator_id, weight: valueOf(text) }));
    return act(() => call("PUT", `sources/${row.source_id}/operators`, entries), "Weights saved", done);
  } },
    [...draft].map(([id, text]) => h("div", { class: "weight", "data-key": id }, h("bdi", { class: "wide" }, nameOf(id)),
      // No number field: where the browser's language has a decimal point, it makes 25 of 2,5.
      h("input", { inputmode: "decimal", pattern: "[0-9]+([.,][0-9]+)?", required: true, value: text, "aria-label": t("Weight of {0}", nameOf(id)),
        oninput: (event) => { draft.set(id, event.target.value); show(); } }),
      h("output", null, percent(total > 0 ? (valueOf(text) || 0) / total : 0)),
      button("Remove", () => { draft.delete(id); show(); }, { "aria-label": t("Remove {0}", nameOf(id)) }))),
    h("div", { class: "line" },
      others.length > 0 && choice("Add", { onchange: (event) => { draft.set(Number(event.target.value), "1"); show(); event.target.value = ""; } },
        [["", t("choose…")], ...others]),
      submit("Save weights"), button("Cancel", done)));
}

const filterBy = (title, name, options) => choice(title, { onchange: (event) => {
  state.filter[name] = event.target.value;
  state.limit = 50;
  poll();
} }, [["", t("all")], ...options], state.filter[name]);

async function findLeads(search) {
  state.search = search;
  const isPhone = /^\+?\d{10,}$/.test(search.replace(/[\s().-]/g, "")); // however it is written
  try {
    let leads = isPhone ? await call("GET", query("leads/", { phone: search })).catch(() => []) : [];
    if (leads.length === 0) leads = await call("GET", query("leads/", { q: search, limit: 50 }));
    if (state.search !== search) return; // a later one was faster
    Object.assign(state, { notice: null });
    state.data.leads = leads;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    state.notice = bad(problem.message);
  }
  show();
}

const sendTest = ({ source_id, priority, ...texts }) => call("POST", "contacts/", {
  ...Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== "")),
  source_id: Number(source_id), priority: Number(priority), event_id: `page-${Date.now()}-${Math.random()}`,
});
const identifiers = (lead) => h("div", { class: "quiet" },
  h("bdi", null, [...lead.phones, ...lead.emails, ...lead.external_ids].join(", ")));
const contactTitle = (contact) => h("div", { class: "wide" },
  h("button", { class: "link", type: "button", onclick: () => open("contact", contact.id) },
    `№ ${contact.id} · `, h("bdi", { class: "name" }, leadName(contact.lead))),
  contact.priority > 0 && [" ", chip(t("priority {0}", contact.priority), "warn")],
  h("div", { class: "quiet" }, h("bdi", null, contact.source.name), " · ", moment(contact.created_at)),
  contact.message && h("bdi", { class: "short" }, contact.message.slice(0, 300)));
const KINDS = { pending: "warn", new: "good", in_progress: "good", closed: "quiet" };
const contactRow = (contact) => part("li", contact.id, contact, () => [contactTitle(contact),
  h("span", { class: "fixed" }, chip(t(contact.status), KINDS[contact.status])),
  h("bdi", { class: "fixed" }, contact.operator?.name ?? t("nobody")), steps(contact)]);
const steps = (contact) => h("div", { class: "line steps" },
  contact.status === "new" && step(contact, "Start", "in_progress", "Started"),
  contact.status !== "closed" && step(contact, "Close", "closed", "Closed"));
const step = ({ id }, text, status, done) => button(text, () => act(() => call("PATCH", `contacts/${id}/status`, { status }), done),
  { "data-key": text, ...of(text, `№ ${id}`) }); // a key, lest Enter on Start twice is Close

const assignment = (contact) => h("div", { class: "line" },
  h("form", { class: "line", onsubmit: onsubmit(({ operator_id }) => assign(contact, { operator_id: Number(operator_id) }), hasIt) },
    choice("To", { name: "operator_id", required: true, ...of("To", `№ ${contact.id}`) }, [["", t("choose…")], ...operatorOptions()]),
    h("button", of("Assign", `№ ${contact.id}`), t("Assign"))),
  button(contact.operator_id ? "To anyone else" : "To anyone", () => act(() => assign(contact, {}), hasIt), of("To anyone", `№ ${contact.id}`)));
const hasIt = (contact) => t("{0} has it now.", contact.operator.name);

/** Not when somebody else has got it since it was shown; past a limit only after a question. */
async function assign({ id, operator_id }, body) {
  const contact = await call("GET", `contacts/${id}`);
  if (contact.operator_id !== operator_id) throw new Problem(409, t("Meanwhile {0} has it.", contact.operator?.name ?? t("nobody")));
  try {
    return await call("POST", `contacts/${id}/assign`, body);
  } catch (problem) {
    if (!/ is (full|inactive)/.test(problem.message)) throw problem;
    if (!confirm(t("{0}. Assign all the same?", said(problem.message)))) return CANCELLED;
    return call("POST", `contacts/${id}/assign`, { ...body, force: true });
  }
}

// --- what opens ------------------------------------------------------------------------------------------------------

function opened() {
  const { kind, id } = state.open;
  const [title, ...content] = state.data.opened ? DIALOGS[kind](state.data.opened) : [t("Reading…")];
  return h("div", { "data-key": `${kind}-${id}` }, h("div", { class: "line" }, h("h2", { id: "dialog-title", class: "wide", tabindex: -1 }, title),
    button("Close this window", () => document.getElementById("dialog").close())), messages(), content);
}

const DIALOGS = {
  contact: (contact) => [
    t("Contact {0}", contact.id),
    h("div", { class: "line" }, chip(t(contact.status), KINDS[contact.status]), h("bdi", { class: "name" }, contact.operator?.name ?? t("nobody")), steps(contact)),
    state.role === "admin" && contact.status !== "closed" && assignment(contact),
    h("p", null, t("Lead"), ": ", h("button", { class: "link", type: "button", onclick: () => open("lead", contact.lead.id) }, h("bdi", null, leadName(contact.lead)))),
    identifiers(contact.lead),
    h("p", { class: "quiet" }, h("bdi", null, contact.source.name), " · ", moment(contact.created_at),
      contact.priority > 0 && ` · ${t("priority {0}", contact.priority)}`),
    contact.identity_note && h("p", { class: "warn" }, h("bdi", null, said(contact.identity_note))),
    contact.message && h("p", { class: "message" }, h("bdi", null, contact.message)),
    h("h3", null, t("History")),
    h("ul", { class: "rows" }, contact.history.map((entry) => h("li", { "data-key": entry.id },
      h("span", { class: "quiet" }, moment(entry.created_at)), h("span", { class: "wide" }, explain(entry))))),
  ],
  lead: (lead) => [
    h("bdi", null, leadName(lead)), identifiers(lead),
    h("h3", null, t("contacts: {0}", number(lead.contacts_count))),
    h("ul", { class: "rows" }, lead.contacts.map(contactRow)),
  ],
  candidates: (candidates) => [
    t("Who gets the next one of {0}?", state.open.name),
    empty(candidates, "Nobody serves this source: its contacts wait."),
    candidates.length > 0 && !candidates.some((one) => one.eligible) && h("p", { class: "warn" }, t("Nobody can: the next one waits.")),
    h("ul", { class: "rows" }, [...candidates].sort((a, b) => b.probability - a.probability).map((one) =>
      h("li", { "data-key": one.operator_id }, h("bdi", { class: "name wide" }, one.operator_name), h("span", null,
        one.eligible ? t("with {0}, load {1} of {2}", percent(one.probability), one.load, one.max_load)
          : t("not: {0}", one.reason === "full" ? t("full, {0} of {1}", one.load, one.max_load) : t(one.reason)))))),
  ],
};

/** A stored assignment in words: "Anna was drawn with 25 %; Boris was full, 10 of 10". */
function explain({ reason, operator_id, candidates }) {
  const left = candidates.filter(({ outcome }) => outcome === "chosen" || outcome === "not_drawn");
  const total = left.reduce((sum, { weight }) => sum + weight, 0);
  const part = ({ weight }) => percent(total > 0 ? weight / total : 0);
  const byHand = reason === "forced" || (reason === "manual" && !candidates.some(({ outcome }) => outcome === "excluded"));
  const seen = candidates.map((one) => {
    const name = nameOf(one.operator_id);
    if (one.outcome === "chosen") {
      if (byHand) return t("{0} got it, at {1} of {2}", name, one.load, one.max_load);
      return t("{0} was drawn with {1}, at {2} of {3}", name, part(one), one.load, one.max_load);
    }
    if (one.outcome === "not_drawn") return byHand ? null : t("{0} was not drawn ({1})", name, part(one));
    if (one.outcome === "full") return t("{0} was full, {1} of {2}", name, one.load, one.max_load);
    return t({ inactive: "{0} was off", zero_weight: "{0} has weight 0", excluded: "{0} had it before" }[one.outcome], name);
  });
  const begin = operator_id === null && reason === "released" ? "released, nobody could take it" : reason;
  return `${t(begin)}: ${seen.filter(Boolean).join("; ") || t("nobody serves the source")}.`;
}

/** What the service says, in the language of the page, with the names of operators. */
function said(message) {
  const words = lang === "ru" ? SAID.reduce((text, [pattern, russian]) => text.replace(pattern, russian), message) : message;
  return words.replace(/(?:operator|оператор) (\d+)/g, (_, id) => nameOf(Number(id)));
}
const SAID = [
  [/operator (\d+) is full: (\d+) of (\d+)/, "оператор $1: нет места, $2 из $3"], [/operator (\d+) is inactive/, "оператор $1 не на смене"],
  [/no other operator of source \d+ can take contact (\d+) now/, "никто другой сейчас не может взять обращение $1"],
  [/source (\d+) already has the (?:name|bot_id) (.*)/, "источник $1 уже называется $2"], [/contact (\d+) is closed: .*/, "обращение $1 закрыто"],
  [/a key of the role (\w+) can't do this/, "ключ с ролью $1 этого не может"], [/\w+: must not be blank/, "нужно имя"],
  [/lead_phone/g, "телефон"], [/lead_email/g, "почта"], [/lead_external_id/g, "id"],
  [/is not a phone number( \(.*?\))?/g, "не похоже на номер"], [/is not an e-mail address/g, "не похоже на адрес"], [/is (missing|blank)/g, "не указано"],
  [/belongs to lead (\d+)/g, "принадлежит лиду $1"], [/the database is not available.*/, "база данных недоступна"],
];
const RU = {
  "{0} s": "{0} с", "{0} min": "{0} мин", "{0} h {1} min": "{0} ч {1} мин", "{0} days": "{0} дн.", "{0} of {1}": "{0} из {1}", Operators: "Операторы", Sources: "Источники",
  Queue: "Очередь", Contacts: "Обращения", Leads: "Лиды", Views: "Разделы", Test: "Тест", "My desk": "Мои обращения", Language: "Язык", Load: "Нагрузка", Name: "Имя", Limit: "Лимит",
  "no answer": "нет ответа", "error {0}": "ошибка {0}", "No answer: it may be done or not.": "Нет ответа: возможно, сделано, а возможно, и нет.",
  "The service is away since {0} ({1}). Trying again every two seconds.": "Сервис недоступен с {0} ({1}). Повторяем каждые две секунды.", "The service is back.": "Сервис снова доступен.",
  Hide: "Скрыть", "Forget key": "Выйти", "Reading…": "Читаем…", "Source name": "Название", "weight {0}": "вес {0}", "new meanwhile: {0}": "появилось новых: {0}",
  "Meanwhile {0} has it.": "Уже у другого: {0}.", "no answer of this service": "ответил не этот сервис", "This key is not known.": "Этот ключ неизвестен.",
  "This service asks for a key": "Нужен ключ", "It is kept for this tab only.": "Он хранится только в этой вкладке.", Key: "Ключ", Enter: "Войти", "Contacts today": "Обращений сегодня",
  "{0} in all": "всего {0}", Waiting: "Ждут", "the longest {0}": "самое долгое ожидание {0}", "Of today's without operator": "Из сегодняшних без оператора",
  "Contacts per minute in the last hour: at most {0}, {1} in this minute": "Обращений в минуту за последний час: максимум {0}, сейчас {1}", Active: "На смене",
  "Switched on": "Теперь на смене", "Switched off": "Больше не на смене", off: "не на смене", inactive: "не на смене", "Operator added": "Оператор добавлен",
  "Add operator": "Добавить оператора", "No operators yet: add one here.": "Операторов пока нет: добавьте здесь.", "today: {0}": "сегодня: {0}", Set: "Сохранить",
  "Limit changed": "Лимит изменён", Release: "Снять всё",
  "Release {0}? All open contacts go to others or back to the queue.": "Снять всё с оператора {0}? Открытые обращения уйдут другим или в очередь.",
  "Released: {0}. To others: {1}, back to the queue: {2}.": "Снято: {0}. Другим: {1}, в очередь: {2}.", "Source added": "Источник добавлен", "Add source": "Добавить источник",
  "Bot id": "Id бота", "No sources yet: add one here.": "Источников пока нет: добавьте здесь.", "Shares of contacts": "Доли обращений", today: "за сегодня", "of all time": "за всё время",
  "Thin bar: by weight. Thick bar: what came out.": "Тонкая полоса: по весам. Толстая: фактически.", "contacts: {0}": "обращений: {0}", "waiting: {0}": "ждут: {0}",
  "full, {0} of {1}": "нет места, {0} из {1}", "Nobody serves this source: its contacts wait.": "Источник никто не обслуживает: обращения ждут.", "Edit weights": "Изменить веса",
  "Save weights": "Сохранить веса", "Weights saved": "Веса сохранены", Cancel: "Отмена", Add: "Добавить", "Weight of {0}": "Вес: {0}", Remove: "Убрать", "Remove {0}": "Убрать: {0}",
  "choose…": "выберите…", "Share by weight of {0}": "Доля по весу: {0}", "Actual share of {0}": "Фактическая доля: {0}",
  "limits, absence or changed weights": "лимиты, отсутствие или смена весов", "▼ less than by weight: {0}": "▼ меньше, чем по весу: {0}",
  "▲ more than by weight: others were full or off, or weights changed": "▲ больше, чем по весу: у других не было места или смены, или веса менялись",
  "Who gets the next one?": "Кто получит следующее?", "Who gets the next one of {0}?": "Кто получит следующее из {0}?",
  "Nobody can: the next one waits.": "Никто не может: следующее будет ждать.", "with {0}, load {1} of {2}": "с вероятностью {0}, нагрузка {1} из {2}", "not: {0}": "нет: {0}",
  zero_weight: "вес 0", "To anyone": "Любому", "To anyone else": "Любому другому", To: "Кому", Assign: "Назначить", "{0} has it now.": "Теперь у оператора {0}.",
  "{0}. Assign all the same?": "{0}. Всё равно назначить?", "Nobody waits.": "Никто не ждёт.", Status: "Статус", Source: "Источник", Operator: "Оператор", all: "все",
  "No contacts.": "Обращений нет.", "Show more": "Показать ещё", pending: "ждёт", new: "новое", in_progress: "в работе", closed: "закрыто", nobody: "никто", Start: "Начать",
  Close: "Закрыть", Started: "Начато", Closed: "Закрыто", "priority {0}": "приоритет {0}", "operator {0}": "оператор {0}", "lead {0}": "лид {0}",
  "Name, phone, e-mail or id": "Имя, телефон, почта или id", Search: "Найти", "No lead found.": "Лид не найден.", "Messenger id": "Id в мессенджере", Phone: "Телефон", "E-mail": "Почта",
  Message: "Сообщение", "Priority (0-9)": "Приоритет (0-9)", Send: "Отправить", "Contact {0}": "Обращение {0}", "Contact {0}: {1} got it.": "Обращение {0} – у оператора {1}.", Lead: "Лид",
  History: "История", "Contact {0}: nobody has room, it waits.": "Обращение {0} ждёт: ни у кого нет места.", "Close this window": "Закрыть окно", distributed: "Распределено",
  queued: "Никто не мог взять, ждёт", from_queue: "Из очереди", manual: "Назначено вручную", forced: "Назначено сверх лимита или не на смене", released: "Снято с оператора",
  "released, nobody could take it": "Снято с оператора, никто не мог взять", "{0} got it, at {1} of {2}": "{0}, нагрузка {1} из {2}",
  "{0} was drawn with {1}, at {2} of {3}": "{0} – жребием ({1}), нагрузка {2} из {3}", "{0} was not drawn ({1})": "{0} – жребий не выпал ({1})",
  "{0} was full, {1} of {2}": "{0} – не было места, {1} из {2}", "{0} was off": "{0} – не на смене", "{0} has weight 0": "{0} – вес 0",
  "{0} had it before": "{0} – раньше обращение было здесь", "nobody serves the source": "источник никто не обслуживает",
};
const EN = { // words of the API that are not said as they are
  new: "new", in_progress: "in progress", zero_weight: "weight 0", inactive: "off", distributed: "Distributed", from_queue: "From the queue",
  queued: "Nobody could take it, it waits", manual: "Assigned by hand", forced: "Assigned past the limit or absence", released: "Released",
  "released, nobody could take it": "Released, nobody could take it",
};

function enter() {
  Object.assign(state, { limit: 50, notice: null });
  if (view() === "leads" && !state.data.leads) findLeads("");
  poll(2);
}
addEventListener("hashchange", enter);
document.addEventListener("contentvisibilityautostatechange", (event) => { event.target.skipped = event.skipped; if (!event.skipped) show(); }, true);
document.getElementById("dialog").addEventListener("close", () => {
  Object.assign(state, { open: null, notice: null });
  show();
  if (document.activeElement === document.body) document.querySelector("main").focus(); // its row is gone
});
document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : poll(2));
show();
enter();
