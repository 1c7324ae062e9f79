// How it went over an hour, a day or days: contacts, time to assignment, load, and the shares against the weights.
import { signal } from "@preact/signals";
import { poll, query, resource, sources } from "../api.js";
import { Chart } from "../chart.js";
import { Sight, button, chance, choice, drawnOf, html, loading } from "../parts.js";
import { duration, now, number, percent, t } from "../text.js";

const SECONDS = { minute: 60, hour: 3600, day: 86400 }; // of a step
const MANY = 7; // sources with a colour of their own; the others are one series
const COUNTS = [1, 2, 5].flatMap((digit) => [0, 1, 2, 3, 4, 5].map((zeros) => digit * 10 ** zeros)).sort((a, b) => a - b);
const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000, 864000];

// --- the period that a person chose -----------------------------------------------------------------------------------

const midnight = (days, at = now()) => new Date(at).setHours(24 * days, 0, 0, 0);
const dateOf = (time) => new Date(time - 60000 * new Date(time).getTimezoneOffset()).toISOString().slice(0, 10);
const PERIODS = { // since, until and the name of a step
  hour: () => {
    const minute = Math.floor(now() / 60000) * 60000;
    return [minute - 59 * 60000, minute + 60000, "minute"];
  },
  today: () => [midnight(0), midnight(1), "hour"],
  week: () => [midnight(-6), midnight(1), "hour"],
  month: () => [midnight(-29), midnight(1), "day"],
  own: () => {
    const [from, to] = [...own.value].sort().map((date) => Date.parse(`${date}T00:00`));
    const days = Math.round((to - from) / 86400000) + 1;
    return [midnight(1 - Math.min(days, 1500), to), midnight(1, to), days > 10 ? "day" : "hour"]; // the API counts 1,500 steps
  },
};
const period = signal("today");
const own = signal([dateOf(midnight(-13)), dateOf(midnight(0))]);
const source = signal("");

let asked; // what is being read: {since, until, step}
let readAt = 0;
const reading = signal(false); // what was chosen is not there yet
function choose(what, value) {
  what.value = value;
  reading.value = true;
  readAt = 0;
  poll();
}

// --- what is read: not at each poll, for it changes slowly, and counting thirty days takes a while ------------------------

const bounds = () => ({ since: new Date(asked.since).toISOString(), until: asked.until > now() ? "" : new Date(asked.until).toISOString() });
const series = (measure, step = () => asked.step) => resource(
  () => query("stats/series", { measure, step: step(), ...bounds(), source_id: source.value }),
  (before, answer) => {
    if (answer.begins.length === 0) return before; // it is midnight here, but not yet at the service
    readAt = now();
    reading.value = false;
    return { ...answer, begins: answer.begins.map(Date.parse), until: asked.until };
  });
// Nearly nobody works at midnight, so that a load of each day says little.
const loadStep = () => (asked.step === "day" && asked.until - asked.since <= 1500 * 3600000 ? "hour" : asked.step);
const contacts = series("contacts"), seconds = series("assign_seconds"), load = series("load", loadStep);
const shares = resource(() => query(source.value ? `stats/sources/${source.value}` : "stats/sources", bounds()), (_, answer) => [answer].flat());

export function reads() {
  if (now() - readAt < (period.value === "hour" ? 10000 : 30000)) return [];
  const [since, until, step] = PERIODS[period.value]();
  asked = { since, until, step };
  return [sources, contacts, seconds, load, shares];
}

// --- what is shown -----------------------------------------------------------------------------------------------------

export function View() {
  return html`
    <div class="card line periods">
      <div class="line" role="group" aria-label=${t("Period")}>${[
        ["hour", t("Hour")], ["today", t("Today")], ["week", t("7 days")], ["month", t("30 days")], ["own", t("From … to …")],
      ].map(([name, text]) => button(text, () => choose(period, name), { "aria-pressed": String(period.value === name) }))}</div>
      ${period.value === "own" && html`<div class="line">${[t("First day"), t("Last day")].map((text, position) => html`<label>${text}
        <input type="date" required min="2000-01-01" max=${dateOf(now())} value=${own.value[position]} onchange=${({ target }) =>
          target.reportValidity() && choose(own, own.value.with(position, target.value))} /></label>`)}</div>`}
      ${choice(t("Source"), { onchange: ({ target }) => choose(source, target.value) },
        [["", t("all")], ...(sources.value ?? []).map(({ id, name }) => [id, name])], source.value)}
    </div>
    ${contacts.value ? html`<div class="pictures" aria-busy=${String(reading.value)}><${Contacts} /><${Seconds} /><${Load} /><${Shares} /></div>` : loading()}`;
}

const pointed = signal(null); // in all pictures at once
const picture = ({ begins, step, until }) => ({ begins, until, step: SECONDS[step], pointed });
const sum = (values) => values.reduce((total, value) => total + (value ?? 0), 0);

function Contacts() {
  const { series: all, step } = contacts.value;
  const named = all.filter(({ source_id }) => source_id !== null), waited = all.find(({ source_id }) => source_id === null);
  const most = new Set([...named].sort((a, b) => sum(b.values) - sum(a.values)).slice(0, named.length > MANY + 1 ? MANY : MANY + 1));
  const rest = named.filter((one) => !most.has(one));
  const shown = [...most].sort((a, b) => a.source_id - b.source_id).map((one, position) => ({ ...one, colour: `--series-${position + 1}`, how: "stack" }));
  if (rest.length > 0) {
    const values = waited.values.map((_, position) => sum(rest.map((one) => one.values[position])));
    shown.push({ name: t("{0} others", rest.length), values, colour: "--series-8", how: "stack" });
  }
  if (shown.length > 0) shown.push({ name: t("Of these had to wait"), values: waited.values, colour: "--waited", how: "inner" });
  return html`<${Chart} title=${t("Contacts")} unit=${{ minute: t("per minute"), hour: t("per hour"), day: t("per day") }[step]} ...${picture(contacts.value)}
    series=${shown.map((one) => ({ ...one, idle: number(sum(one.values)) }))} whole=${t("In the whole period")}
    say=${number} brief=${number} ticks=${COUNTS} none=${shown.length === 0 && t("No contacts in this period.")} />`;
}

function Seconds() {
  const [p50, p95] = seconds.value.series, assigned = p95.values.some((value) => value !== null);
  const brief = (time) => (time % 3600 === 0 && time > 0 && time < 2 * SECONDS.day ? t("{0} h", time / 3600) : duration(time));
  const none = assigned ? t("All contacts had an operator at once.") : t("Nothing was assigned in this period.");
  return html`<${Chart} title=${t("Time to assignment")} unit=${t("half of the contacts, and 95 of 100, had an operator within it")} ...${picture(seconds.value)}
    series=${[{ ...p95, name: t("95 of 100"), colour: "--series-light", how: "bar" }, { ...p50, name: t("half"), colour: "--series-1", how: "bar" }]}
    say=${duration} brief=${brief} ticks=${TIMES} none=${sum(p95.values) === 0 && none} />`;
}

function Load() {
  const { series: [open], capacity } = load.value;
  const limit = { name: t("Capacity, as it is now"), values: open.values.map(() => capacity), colour: "--waited", how: "limit" };
  return html`<${Chart} title=${t("Load")} unit=${t("open contacts that have an operator")} ...${picture(load.value)} atEnd
    series=${[{ ...open, name: t("Load"), colour: "--series-1", how: "area" }, ...(capacity === null ? [] : [limit])]}
    say=${number} brief=${number} ticks=${COUNTS} />`;
}

function Shares() {
  const rows = shares.value.map(withChance).filter(({ assigned }) => assigned > 0)
    .sort((a, b) => b.operators.some(outside) - a.operators.some(outside) || b.assigned - a.assigned); // first where something bends them
  return html`<section class="card" aria-label=${t("Shares")}><h3>${t("Shares")} <small class="quiet">${t("of the contacts of a source")}</small></h3>
    <ul class="legend"><li><i class="by-weight"></i>${t("by weight, as it is now")}</li><li><i class="came-out"></i>${t("came out")}</li>
      <li><i class="chance"></i>${t("what chance allows")}</li></ul>
    ${rows.length === 0 && html`<p class="quiet">${t("No contacts in this period.")}</p>`}
    <div class="cards">${rows.map((row) => html`<${Sight} key=${row.source_id} tag="section" row=${row} draw=${sourceShares} />`)}</div></section>`;
}

/** Of what was drawn by these weights; range: how far chance alone may take a share from that of the weight. */
function withChance(source) {
  const operators = drawnOf(source.operators).map((one) => ({ ...one, range: chance(one.target_share, one.whole) }));
  return { ...source, operators, assigned: sum(operators.map((one) => one.contacts)), drawn: operators[0]?.whole };
}
const outside = ({ target_share, drawn_share, range }) =>
  Math.abs(drawn_share - target_share) <= range ? "" : drawn_share < target_share ? "▼ " : "▲ ";

function sourceShares({ source_name, operators, assigned, drawn }) {
  const farthest = Math.max(...operators.map(({ target_share, drawn_share, range }) => Math.max(drawn_share, Math.min(1, target_share + range))));
  const most = Math.ceil(10 * farthest) / 10;
  return html`<table class="shares"><caption><bdi>${source_name}</bdi> <span class="quiet">${t("contacts: {0}", number(assigned))}${
    drawn < assigned && `, ${t("drawn by these weights: {0}", number(drawn))}`}</span></caption>
    <thead><tr><th scope="col">${t("Operator")}</th><th scope="col" class="strips"><span class="unseen">${t("what chance allows")}</span>
      <span class="axis" aria-hidden="true"><span>${percent(0)}</span><span>${percent(most)}</span></span></th>
      <th scope="col">${t("by weight")}</th><th scope="col">${t("came out")}</th></tr></thead>
    <tbody>${operators.map((row) => html`<tr key=${row.operator_id}><th scope="row"><bdi>${row.operator_name}</bdi></th><td><${Strip} ...${row} most=${most} /></td>
      <td>${percent(row.target_share)}</td><td><strong>${outside(row)}${percent(row.drawn_share)}</strong></td></tr>`)}</tbody></table>`;
}

function Strip({ target_share, drawn_share, range, most }) {
  const [low, high] = [Math.max(0, target_share - range), Math.min(1, target_share + range)], at = (share) => `${(100 * share) / most}%`;
  const text = t("chance allows {0} to {1}", percent(low), percent(high));
  return html`<div class="strip" role="img" aria-label=${text} title=${text}>
    <i class="chance" style=${{ left: at(low), width: at(high - low) }}></i><i class="by-weight" style=${{ left: at(target_share) }}></i>
    <i class="came-out ${outside({ target_share, drawn_share, range }) && "outside"}" style=${{ left: at(drawn_share) }}></i></div>`;
}
