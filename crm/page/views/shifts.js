// Opened over the page: when an operator works. The week as a picture, edited and saved at once; absences and extra shifts.
import { useSignal } from "@preact/signals";
import { Problem, act, call, role } from "../api.js";
import { Field, Form, button, chip, html, of, shift, submit } from "../parts.js";
import { now, period, t, weekday } from "../text.js";

const DAY = 86400000, WEEK = [0, 1, 2, 3, 4, 5, 6];
const ZONES = ["UTC", ...Intl.supportedValuesOf("timeZone")];

const mayEdit = () => role.value === "admin"; // an operator sees its own
export const path = (id) => `operators/${id}/shifts`;
export const title = (_, name) => t("Shifts of {0}", name);
export const View = ({ answer: plan }) => html`
  <p>${shift(plan)}</p>
  <p class="quiet">${t("The days and hours below are those of {0}.", plan.zone)}</p>
  <${Exceptions} plan=${plan} />
  <h3>${t("Week")}</h3>
  <${Week} plan=${plan} />`;

/** Writes what `change` makes of the plan as it is now, so that what another has changed since it was shown stays. */
async function write({ operator_id }, change) {
  const { time_zone, hours, exceptions } = await call("GET", path(operator_id)), plan = { time_zone, hours, exceptions };
  return call("PUT", path(operator_id), { ...plan, ...change(plan) }).catch((problem) => {
    if (!Array.isArray(problem.detail)) throw problem;
    throw new Problem(problem.status, problem.detail.map(({ loc, msg }) => ({ loc: [loc[1] === "exceptions" ? "to" : loc.slice(1).join("-")], msg })));
  });
}

// --- the week --------------------------------------------------------------------------------------------------------

const minutesOf = (clock) => clock.split(":").reduce((sum, part) => 60 * sum + Number(part), 0);
const clockOf = (minutes) => [minutes / 60, minutes % 60].map((part) => String(Math.floor(part)).padStart(2, "0")).join(":");
/** What of the hours is on a day, in minutes: of a span over midnight each of the two has its part. */
const partsOf = (day, hours) => hours.filter(({ begin, end }) => begin && end).flatMap((span) => {
  const begin = minutesOf(span.begin), end = minutesOf(span.end), isOver = end <= begin;
  if (span.weekday === day) return [[begin, isOver ? 1440 : end]];
  return isOver && end > 0 && (span.weekday + 1) % 7 === day ? [[0, end]] : [];
}).sort(([one], [other]) => one - other);

function Week({ plan }) {
  const draft = useSignal({}); // what is being edited
  const { hours, time_zone } = { ...plan, ...draft.value };
  const set = (all) => (draft.value = { ...draft.value, hours: all });
  const drop = () => (draft.value = {});
  const save = () => write(plan, () => ({ time_zone: time_zone?.trim() || null, hours }));
  const copy = () => {
    const monday = hours.filter((span) => span.weekday === 0);
    set([...monday, ...[1, 2, 3, 4].flatMap((day) => monday.map((span) => ({ ...span, weekday: day }))), ...hours.filter((span) => span.weekday > 4)]);
  };
  return html`<${Form} class="week" work=${save} done=${t("Shifts saved")} then=${drop}>
    ${hours.length === 0 && html`<p class="quiet">${t("No hours: always on shift.")}</p>`}
    <div class="day"><span></span><span class="hours quiet" aria-hidden="true">${[0, 6, 12, 18, 24].map((hour) => html`<span>${hour}</span>`)}</span></div>
    ${WEEK.map((day) => html`<${Day} key=${day} day=${day} hours=${hours} set=${set} />`)}
    ${mayEdit() && html`<div class="line">${button(t("Tuesday to Friday as Monday"), copy)}
      <${Field} text=${t("Time zone")} name="time_zone" maxlength="64" list="zones" autocomplete="off" spellcheck=${false}
        value=${time_zone ?? ""} oninput=${({ target }) => (draft.value = { ...draft.value, time_zone: target.value })}
        placeholder=${plan.time_zone ? t("that of the service") : plan.zone} />
      <datalist id="zones">${ZONES.map((zone) => html`<option key=${zone} value=${zone} />`)}</datalist></div>
    <div class="line">${submit(t("Save week"))}${button(t("Cancel"), drop)}</div>`}<//>`;
}

function Day({ day, hours, set }) {
  const name = weekday(day), parts = partsOf(day, hours), own = hours.filter((span) => span.weekday === day);
  const text = parts.map((part) => part.map(clockOf).join("–")).join(", ") || t("off_shift");
  const focus = (event, selector) => {
    const row = event.currentTarget.parentElement;
    setTimeout(() => [...row.querySelectorAll(selector)].at(-1).focus()); // when it is drawn
  };
  const add = (event) => {
    const begin = own.at(-1)?.end || "09:00", end = own.length > 0 ? clockOf((minutesOf(begin) + 60) % 1440) : "18:00";
    set([...hours, { weekday: day, begin, end }]);
    focus(event, ".span > :first-child input");
  };
  const remove = (event, span) => {
    focus({ currentTarget: event.currentTarget.parentElement }, ".add");
    set(hours.filter((one) => one !== span));
  };
  const clock = (span, which, label) => html`<${Field} text="" type="time" required name="hours-${hours.indexOf(span)}-${which}" value=${span[which]}
    ...${of(name, label)} oninput=${({ target }) => set(hours.map((one) => (one === span ? { ...one, [which]: target.value } : one)))} />`;
  return html`<div class="day" role="group" aria-label=${name}><strong>${name}</strong>
    <svg viewBox="0 0 1440 10" preserveAspectRatio="none" role="img" aria-label="${name}: ${text}">
      ${parts.map(([begin, end]) => html`<rect x=${begin} width=${end - begin} height="10" />`)}
      ${[360, 720, 1080].map((at) => html`<line x1=${at} x2=${at} y2="10" />`)}</svg>
    ${!mayEdit() ? html`<div class="line">${text}</div>` : html`<div class="line">${own.map((span, position) => html`<span class="span" key=${position}>${clock(span, "begin", t("begins"))}–${clock(span, "end", t("ends"))}
        ${button("✕", (event) => remove(event, span), of(t("Remove"), `${name} ${span.begin}–${span.end}`))}</span>`)}
      ${button("+", add, { class: "add", ...of(t("Add hours"), name) })}</div>`}</div>`;
}

// --- exceptions: whole days that somebody is absent, and extra shifts -------------------------------------------------

/** The clock of a zone, such as 2026-11-26T14:05:00. */
const clockIn = (zone, at) => new Date(at).toLocaleString("sv-SE", { timeZone: zone }).replace(" ", "T");
/** When it is such a time there; when clocks are changed, as the service reads hours: the first of two, and none as before the change. */
function momentIn(zone, clock) {
  const utc = Date.parse(`${clock}Z`), ahead = (at) => Date.parse(`${clockIn(zone, at)}Z`) - at;
  const [before, after] = [utc - DAY, utc + DAY].map((at) => utc - ahead(at)), isThen = (at) => clockIn(zone, at).startsWith(clock);
  return new Date(!isThen(before) && isThen(after) ? after : before).toISOString();
}
const dayAfter = (date) => new Date(Date.parse(date) + DAY).toISOString().slice(0, 10);

function Exceptions({ plan }) {
  const { zone, exceptions } = plan, today = clockIn(zone, now()).slice(0, 10);
  const same = (one, other) => Date.parse(one.begin) === Date.parse(other.begin) && Date.parse(one.end) === Date.parse(other.end) && one.works === other.works;
  const without = (one) => write(plan, ({ exceptions: all }) => ({ exceptions: all.filter((other) => !same(one, other)) }));
  const put = (begin, end, works) => {
    const added = { begin: momentIn(zone, begin), end: momentIn(zone, end), works };
    return write(plan, ({ exceptions: all }) => ({ exceptions: [...all.filter((one) => !same(one, added)), added] })); // the later wins
  };
  const absent = ({ first, to }) => put(`${first}T00:00`, `${dayAfter(to)}T00:00`, false);
  const extra = ({ date, begin, end }) => put(`${date}T${begin}`, `${end <= begin ? dayAfter(date) : date}T${end}`, true);
  const date = (text, name) => html`<${Field} text=${text} name=${name} type="date" required min="2000-01-01" max="2999-12-31" defaultValue=${today} />`;
  const clock = (text, name, value) => html`<${Field} text=${text} name=${name} type="time" required defaultValue=${value} />`;
  const isMidnight = (at) => clockIn(zone, at).endsWith("T00:00:00");
  const nameOfOne = ({ begin, end }) => period(begin, end, zone, isMidnight(begin) && isMidnight(end));
  const rows = (some) => some.length > 0 && html`<ul class="rows">${some.map((one) => html`
    <li key=${one.begin + one.end + one.works}>${chip(one.works ? t("extra shift") : t("absent"), one.works ? "good" : "warn")}
      <span class="wide">${nameOfOne(one)}</span>
      ${mayEdit() && button(t("Remove"), () => act(() => without(one), t("Shifts saved")), of(t("Remove"), nameOfOne(one)))}</li>`)}</ul>`;
  const sorted = [...exceptions].sort((one, other) => Date.parse(one.begin) - Date.parse(other.begin));
  const past = sorted.filter(({ end }) => Date.parse(end) <= now());
  return html`<h3>${t("Absences and extra shifts")}</h3>
    ${rows(sorted.filter((one) => !past.includes(one)))}
    ${past.length > 0 && html`<details><summary>${t("Past: {0}", past.length)}</summary>${rows(past.reverse())}</details>`}
    ${mayEdit() && html`<${Form} work=${absent} done=${t("Shifts saved")}><div class="line">
      ${button(t("Absent today"), () => act(() => absent({ first: today, to: today }), t("Shifts saved")))}
      ${date(t("First day"), "first")}${date(t("Last day"), "to")}<button>${t("Mark absent")}</button></div><//>
    <${Form} work=${extra} done=${t("Shifts saved")}><div class="line">
      ${date(t("Works also on"), "date")}${clock(t("begins"), "begin", "09:00")}${clock(t("ends"), "end", "18:00")}<button>${t("Add shift")}</button></div><//>`}`;
}
