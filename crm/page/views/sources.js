// All sources: shares by weight against what came out, and the weights.
import { signal } from "@preact/signals";
import { act, call, nameOf, open, operators, poll, query, resource, sources } from "../api.js";
import { Field, Form, Sight, bar, button, chance, chip, choice, drawnOf, html, loading, of, operatorOptions, submit } from "../parts.js";
import { number, percent, t, today } from "../text.js";
import { Trial } from "./trial.js";

const period = signal("today");
const shares = resource(() => query("stats/sources", period.value === "today" ? today() : {}));
const drafts = signal(new Map()); // by source: the weights that are being edited, as texts, the topic that is shown, and what is tried

export const reads = () => [operators, sources, shares];
export function View() {
  const add = ({ name, bot_id }) => call("POST", "sources/", { name, bot_id: bot_id || null });
  const choose = (event) => {
    period.value = event.target.value;
    poll();
  };
  return html`
    <${Form} class="card line" work=${add} done=${t("Source added")}>
      <${Field} text=${t("Source name")} name="name" required maxlength="100" />
      <${Field} text=${t("Bot id")} name="bot_id" maxlength="100" />
      ${submit(t("Add source"))}
    <//>
    <div class="line">
      ${choice(t("Shares of contacts"), { onchange: choose }, [["today", t("today")], ["all", t("of all time")]], period.value)}
      <span class="quiet">${t("Thin bar: by weight. Thick bar: what came out.")}</span>
    </div>
    ${shares.value ? null : loading()}
    ${shares.value?.length === 0 && html`<p class="quiet">${t("No sources yet: add one here.")}</p>`}
    <div class="cards">${shares.value?.map((row) => html`<${Sight} key=${row.source_id} tag="section" class="card" row=${row} draw=${source} />`)}</div>`;
}

function source(row) {
  const draft = drafts.value.get(row.source_id);
  const made = sources.value?.find((one) => one.id === row.source_id);
  const edit = () => setDraft(row, { topic: "", entries: made.operators.map((entry) => ({ ...entry, weight: String(entry.weight) })) });
  return html`
    <div class="line"><h3><bdi>${row.source_name}</bdi></h3>${made?.bot_id && html`<bdi class="quiet">${made.bot_id}</bdi>`}
      <span class="end number">${t("contacts: {0}", number(row.total_contacts))}</span>
      ${row.pending > 0 && chip(t("waiting: {0}", number(row.pending)), "warn")}</div>
    ${draft ? html`<${Weights} row=${row} draft=${draft} />` : html`
      ${row.operators.length === 0 && html`<p class="quiet">${t("Nobody serves this source: its contacts wait.")}</p>`}
      ${drawnOf(row.operators).map((entry) => html`<${Share} key=${entry.operator_id} ...${entry} ...${markOf(entry)} />`)}
      ${row.topics.length > 0 && html`<div class="line">${t("Topics")}: ${row.topics.map((one) => topic(one, made))}</div>`}
      <div class="line">
        ${made && button(t("Edit weights"), edit)}
        ${made && button(t("Settings"), () => open("source", row.source_id), of(t("Settings"), row.source_name))}
        ${button(t("Who gets the next one?"), () => open("candidates", row.source_id, row.source_name))}
      </div>`}`;
}

const sharesOf = (name, made) => made?.operators.filter((entry) => entry.topic === name && entry.weight > 0)
  .map(({ operator_name, share }) => `${operator_name} ${percent(share)}`).join(", ");
const topic = ({ topic: name, contacts, pending, has_weights }, made) => html`<span key=${name} class="chip topic ${has_weights ? "quiet" : "warn"}"><bdi>${name}</bdi>: ${
  number(contacts)}${pending > 0 && `, ${t("waiting: {0}", number(pending))}`}${!has_weights && ` – ${t("no weights: mistyped?")}`}${
  has_weights && html` – <bdi>${sharesOf(name, made)}</bdi>`}</span>`;

/** What keeps the shares from following the weights: a difference that chance alone makes once in some hundred times. */
function markOf({ target_share, drawn_share, operator_id, weight, whole }) {
  const row = operators.value?.find((one) => one.operator_id === operator_id);
  const why = row && !row.is_active ? t("off") : row && !row.on_shift ? t("off_shift") : row && row.load >= row.max_load ? t("full, {0} of {1}", row.load, row.max_load) : null;
  if (Math.abs(drawn_share - target_share) <= chance(target_share, whole)) return { mark: weight > 0 && why, kind: "quiet" };
  return { kind: "warn", mark: drawn_share < target_share ? t("▼ less than by weight: {0}", why ?? t("limits, absence or changed weights"))
    : t("▲ more than by weight: others were full or off, or weights changed") };
}

function Share({ operator_name, weight, target_share, actual_share, sticky, of_topics, mark, kind }) {
  return html`<div class="share">
    <div><bdi>${operator_name}</bdi> <small class="quiet">${[t("weight {0}", number(weight)),
      sticky > 0 && t("as last time: {0}", number(sticky)), of_topics > 0 && t("by topic: {0}", number(of_topics))].filter(Boolean).join(" · ")}</small></div>
    <div class="bars">
      ${bar(target_share, "target", t("Share by weight of {0}", operator_name), percent(target_share))}
      ${bar(actual_share, "actual", t("Actual share of {0}", operator_name), percent(actual_share))}
    </div>
    <small class="number">${percent(target_share)}<br /><strong>${percent(actual_share)}</strong></small>
    ${mark && html`<small class="mark chip ${kind}">${mark}</small>`}
  </div>`;
}

/** draft: none when the weights are edited no more. */
function setDraft({ source_id }, draft) {
  const all = new Map(drafts.value);
  if (draft) all.set(source_id, draft);
  else all.delete(source_id);
  drafts.value = all;
}

const NEW = " "; // no topic is called so
function Weights({ row, draft }) {
  const { topic: shown, entries, tried } = draft;
  const change = (values) => setDraft(row, { ...draft, tried: null, ...values }); // what was tried holds no more
  const valueOf = (text) => Number(text.replace(",", "."));
  const own = entries.filter(({ topic }) => topic === shown), total = own.reduce((sum, { weight }) => sum + (valueOf(weight) || 0), 0);
  const set = (entry, weight) => change({ entries: entries.map((one) => (one === entry ? { ...one, weight } : one)) });
  const add = (operator_id) => change({ entries: [...entries, { topic: shown, operator_id, weight: "1" }] });
  const others = operatorOptions().filter(([id]) => !own.some(({ operator_id }) => operator_id === id));
  const topics = [...new Set(["", ...entries.map(({ topic }) => topic), ...(shown === NEW ? [] : [shown])])];
  const turn = ({ target }) => {
    if (shown === NEW || target.form.reportValidity()) change({ topic: target.value });
    else target.value = shown;
  };
  const weights = () => entries.map(({ topic, operator_id, weight }) => ({ topic, operator_id, weight: valueOf(weight) }));
  const tryThem = ({ currentTarget }) => currentTarget.form.reportValidity() && change({ tried: weights() });
  const save = (event) => {
    event.preventDefault();
    if (shown === NEW) return change({ topic: new FormData(event.currentTarget).get("topic").trim() });
    // Read again before it can be edited again, which begins with what was read.
    return act(() => call("PUT", `sources/${row.source_id}/operators`, weights()).then(() => poll()), t("Weights saved"), () => setDraft(row));
  };
  const chosen = choice(t("Topic"), { onchange: turn }, [...topics.map((topic) => [topic, topic || t("any other")]), [NEW, t("a new one…")]], shown);
  if (shown === NEW) {
    return html`<form class="line" onsubmit=${save}>${chosen}<label>${t("New topic")}<input name="topic" required pattern=".*\\S.*" maxlength="100" /></label>
      ${submit(t("Add topic"))}${button(t("Cancel"), () => setDraft(row))}</form>`;
  }
  // No number field: where the browser's language has a decimal point, it makes 25 of 2,5.
  return html`<form onsubmit=${save}>
    ${chosen}
    ${shown && total === 0 && html`<p class="quiet">${t("Without weights of its own, a topic is drawn like any other contact.")}</p>`}
    ${own.map((entry) => html`<div class="weight" key=${entry.operator_id}><bdi class="wide">${nameOf(entry.operator_id)}</bdi>
      <input inputmode="decimal" pattern="[0-9]+([.,][0-9]+)?" required value=${entry.weight} aria-label=${t("Weight of {0}", nameOf(entry.operator_id))}
        oninput=${(event) => set(entry, event.target.value)} />
      <output class="number">${percent(total > 0 ? (valueOf(entry.weight) || 0) / total : 0)}</output>
      ${button(t("Remove"), () => change({ entries: entries.filter((one) => one !== entry) }), { "aria-label": t("Remove {0}", nameOf(entry.operator_id)) })}</div>`)}
    <div class="line">
      ${others.length > 0 && choice(t("Add"), { onchange: (event) => add(Number(event.target.value)) }, [["", t("choose…")], ...others], "")}
      ${submit(t("Save weights"))}
      ${button(t("Try"), tryThem, of(t("Try"), row.source_name))}
      ${button(t("Cancel"), () => setDraft(row))}
    </div>
  </form>
  ${tried && html`<${Trial} source=${row} topic=${shown} weights=${tried} />`}`;
}
