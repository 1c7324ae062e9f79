// What views are made of. What comes from the API is a text or an attribute, never HTML.
import { createContext, h } from "preact";
import { useContext, useLayoutEffect, useRef } from "preact/hooks";
import { useSignal } from "@preact/signals";
import htm from "htm";
import { act, call, idOf, operators, said, tick } from "./api.js";
import { duration, now, number, percent, soon, t } from "./text.js";

export const html = htm.bind(h);

export const button = (text, onclick, properties) => html`<button type="button" onclick=${onclick} ...${properties}>${text}</button>`;
export const of = (text, what) => ({ "aria-label": `${text}: ${what}` }); // tells apart what is there once for each row
export const chip = (text, kind) => html`<span class="chip ${kind}">${text}</span>`;
export const submit = (text) => html`<button class="main">${text}</button>`;
export const loading = () => html`<p class="quiet">${t("Reading…")}</p>`;
export const limit = (value) => ({ name: "max_load", type: "number", min: 0, max: 100000, required: true, defaultValue: value });

/** options: pairs of value and text. chosen: none when the form keeps what is chosen. */
export const choice = (text, properties, options, chosen) => html`<label>${text}<select ...${properties} ...${chosen === undefined ? {} : { value: chosen }}>
  ${options.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}</select></label>`;

const Wrong = createContext();
/** A form that gives its fields to `work`, as act does it, and is emptied when it went well (or does `then`); says what is wrong beside the field. */
export function Form({ work, done, then, children, ...properties }) {
  const wrong = useSignal({});
  async function onsubmit(event) {
    event.preventDefault();
    const form = event.currentTarget, fields = Object.fromEntries(new FormData(form));
    wrong.value = {};
    const problem = await act(() => work(fields), done, then ?? (() => form.reset()), Object.keys(fields));
    wrong.value = problem?.fields ?? {};
    setTimeout(() => form.querySelector("[aria-invalid]")?.focus()); // when it is drawn
  }
  return html`<form onsubmit=${onsubmit} ...${properties}><${Wrong.Provider} value=${wrong}>${children}<//></form>`;
}

export function Field({ text, tag = "input", ...properties }) {
  const wrong = useContext(Wrong)?.value[properties.name];
  const id = `wrong-${properties.name}`;
  return html`<span class="field"><label>${text}<${tag} ...${properties} aria-invalid=${wrong ? "true" : null} aria-describedby=${wrong ? id : null} /></label>
    ${wrong && html`<small class="bad" id=${id} aria-live="polite">${said(wrong)}</small>`}</span>`;
}

/** part: 0 to 1. value: what a screen reader says. */
export const bar = (part, kind, label, value) => html`
  <svg class="bar ${kind}" viewBox="0 0 100 10" preserveAspectRatio="none" role="meter" aria-label=${label}
    aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(100 * part)} aria-valuetext=${value}>
    <rect width=${100 * Math.min(1, part)} height="10" /></svg>`;
export const loadBar = ({ load, max_load }) => html`<div class="wide load">
  ${bar(load / Math.max(1, max_load), load >= max_load ? "full" : load >= 0.8 * max_load ? "nearly" : "", t("Load"), t("{0} of {1}", load, max_load))}
  <span>${t("{0} of {1}", number(load), number(max_load))}</span></div>`;

export function Switch({ id, name, active }) {
  const turn = () => act(() => call("PATCH", `operators/${id}`, { is_active: !active }), active ? t("Switched off") : t("Switched on"));
  return button(t("Active"), turn, { role: "switch", "aria-checked": String(active), ...of(t("Active"), name) });
}

/** Whether it is in its hours, of who has some. */
export const shift = ({ on_shift, shift_until }) => (on_shift
  ? shift_until && html`<span class="quiet">${t("on until {0}", soon(shift_until))}</span>`
  : chip(shift_until ? t("off shift until {0}", soon(shift_until)) : t("off_shift"), "quiet"));

export const operatorOptions = () => (operators.value ?? []).map((row) =>
  [row.operator_id, `${row.operator_name} (${t("{0} of {1}", row.load, row.max_load)}${row.is_active ? "" : `, ${t("off")}`}${row.on_shift ? "" : `, ${t("off_shift")}`})`]);

/** Rows of a list: Row is a component that gets one of the items as `row`, and is drawn again when that has changed; `later` is
 *  for Sight. */
export function Rows({ items, Row, none }) {
  if (!items) return loading();
  if (items.length === 0) return html`<p class="quiet">${none}</p>`;
  return html`<ul class="rows">${items.map((row, position) => html`
    <${Row} key=${idOf(row)} row=${row} later=${position >= 6} />`)}</ul>`;
}

const AHEAD = "25% 0px"; // of a screen, or of the dialog that scrolls: lest somebody sees them come
const sight = new IntersectionObserver((changes) => changes.forEach(({ target, isIntersecting }) => (target.isSeen.value = isIntersecting)),
  { rootMargin: AHEAD, scrollMargin: AHEAD });
/** A row or card whose content, draw(row), is drawn only while it is in sight. later: not before that, even when it is new, for a
 *  list of which all may be new with each poll. */
export function Sight({ tag, row, draw, later, ...properties }) {
  const element = useRef(), drawn = useRef(), isSeen = useSignal(!later);
  useLayoutEffect(() => { // before it is painted, so that a row in sight is blank for one frame at most
    const place = element.current;
    place.isSeen = isSeen;
    sight.observe(place);
    return () => sight.unobserve(place);
  }, []);
  if (isSeen.value) drawn.current = draw(row);
  return html`<${tag} ref=${element} ...${properties}>${drawn.current}<//>`;
}

export function Since({ time }) {
  return duration(((tick.value && now()) - Date.parse(time)) / 1000);
}

/** How far chance alone takes a share from that of the weight, but for once in some hundred times. */
export const chance = (target, contacts) => 3 * Math.sqrt((target * (1 - target)) / Math.max(1, contacts)) + 1 / Math.max(1, contacts);
/** The rows of a source with what its plain weights drew: without returning leads, and what was drawn by weights of a topic. */
export function drawnOf(rows) {
  const drawn = rows.map(({ contacts, sticky, of_topics }) => contacts - sticky - of_topics), whole = drawn.reduce((sum, count) => sum + count, 0);
  return rows.map((row, position) => ({ ...row, whole, drawn_share: drawn[position] / Math.max(1, whole) }));
}
export const share = (part, whole) => percent(whole > 0 ? part / whole : 0);
