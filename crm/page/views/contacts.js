// The newest contacts, by status, source, operator and topic.
import { useEffect, useRef } from "preact/hooks";
import { computed, signal, useSignal } from "@preact/signals";
import { operators, poll, query, resource, role, sources } from "../api.js";
import { Rows, button, choice, html } from "../parts.js";
import { t } from "../text.js";
import { Contact } from "./contact.js";

const filter = signal({}), limit = signal(50), isMore = signal(false);
const contacts = resource(() => query("contacts/", { limit: limit.value, ...filter.value }), (before, rows, keep) => {
  isMore.value = rows.length === limit.value && limit.value < 1000;
  return keep(before, rows);
});
// While the pointer or the keyboard is in the list it stands still: {newest, rows}, its first contact then and a resource from that on.
const held = signal(null);
// As text, which seldom changes, for the loads of operators change with each poll.
const names = computed(() => JSON.stringify([
  (sources.value ?? []).map(({ id, name }) => [id, name]),
  (operators.value ?? []).map(({ operator_id, operator_name }) => [operator_id, operator_name]),
  [...new Set([...(sources.value ?? []).flatMap((source) => source.operators), ...(contacts.value ?? [])].map(({ topic }) => topic).filter(Boolean))].sort()]));

export const reads = () => [...(role.value === "admin" ? [operators, sources] : []), contacts, ...(held.value ? [held.value.rows] : [])];
export function View() {
  useEffect(() => () => {
    limit.value = 50;
    held.value = null;
  }, []);
  const more = () => {
    limit.value = Math.min(1000, limit.value + 50);
    poll();
  };
  return html`
    <${Filters} />
    ${role.value === "admin" && html`<${Export} />`}
    <${Newest} />
    ${isMore.value && button(t("Show more"), more)}`;
}

function Filters() {
  const [ofSources, ofOperators, topics] = JSON.parse(names.value);
  const late = held.value && contacts.value.filter(({ id }) => id > held.value.newest).length;
  return html`<div class="card line">
    ${filterBy(t("Status"), "status", ["pending", "new", "in_progress", "closed"].map((status) => [status, t(status)]))}
    ${role.value === "admin" && html`
      ${filterBy(t("Source"), "source_id", ofSources)}
      ${filterBy(t("Operator"), "operator_id", ofOperators)}`}
    ${(topics.length > 0 || filter.value.topic) && html`<label>${t("Topic")}<input type="search" maxlength="100" list="topics" placeholder=${t("all")}
      defaultValue=${filter.value.topic} onchange=${choose("topic")} onsearch=${choose("topic")} /></label>
      <datalist id="topics">${topics.map((topic) => html`<option key=${topic} value=${topic} />`)}</datalist>`}
    ${late > 0 && html`<span class="quiet end">${t("new meanwhile: {0}", `${late}${late === limit.value ? "+" : ""}`)}</span>`}
  </div>`;
}

const choose = (name) => ({ target }) => {
  if (target.value.trim() === (filter.value[name] ?? "")) return;
  filter.value = { ...filter.value, [name]: target.value.trim() };
  limit.value = 50;
  poll();
};
function filterBy(text, name, options) {
  return choice(text, { onchange: choose(name) }, [["", t("all")], ...options], filter.value[name] ?? "");
}

/** All that the filters let through, as a file; the browser sends the session along when it follows a link. */
function Export() {
  const days = useSignal(["", ""]); // the first and the last one, such as 2026-11-26
  const [first, last] = days.value.every(Boolean) ? [...days.value].sort() : days.value;
  const since = first && new Date(`${first}T00:00`).toISOString(), until = last && new Date(new Date(`${last}T00:00`).setHours(24)).toISOString();
  const day = (text, position) => html`<label>${text}<input type="date" min="2000-01-01" max="2099-12-31"
    onchange=${({ target }) => target.checkValidity() && (days.value = days.value.with(position, target.value))} /></label>`;
  const file = (text, format) => html`<a download href=${query("contacts/export", { format, ...filter.value, since, until })}>${text}</a>`;
  return html`<details class="card"><summary>${t("Export")}</summary>
    <p class="quiet">${t("All contacts with the filters above, oldest first; without days those of all time.")}</p>
    <div class="line">${day(t("First day"), 0)}${day(t("Last day"), 1)}${file(t("CSV, for spreadsheets"), "csv")}${file(t("JSON lines, for programs"), "jsonl")}</div>
  </details>`;
}

/** Contacts, newest first. What is new comes in when neither the pointer nor the keyboard is in the list. */
function Newest() {
  const list = useRef(), inside = useRef({ pointer: false, keyboard: false });
  const note = (who, isInside) => {
    inside.current[who] = isInside;
    if (!inside.current.pointer && !inside.current.keyboard) held.value = null;
    else if (!held.value && contacts.value?.length) hold(contacts.value);
  };
  useEffect(() => { // a button that had the focus may be gone
    if (inside.current.keyboard && !list.current.contains(document.activeElement)) note("keyboard", false);
  });
  // A window that closes gives the focus back, which is nobody's step into the list.
  const isStep = ({ target, relatedTarget: last }) => last?.closest("#page") && target.matches(":focus-visible");
  return html`<div ref=${list} onmouseenter=${() => note("pointer", true)} onmouseleave=${() => note("pointer", false)}
    onfocusin=${(event) => isStep(event) && note("keyboard", true)}
    onfocusout=${({ currentTarget, relatedTarget: next }) => currentTarget.contains(next) || note("keyboard", false)}>
    <${Rows} items=${(held.value?.rows ?? contacts).value} Row=${Contact} none=${t("No contacts.")} /></div>`;
}

function hold(shown) {
  const [{ id: newest }] = shown;
  const rows = resource(() => query("contacts/", { limit: limit.value, ...filter.value, before_id: newest + 1 }));
  rows.value = shown;
  held.value = { newest, rows };
}
