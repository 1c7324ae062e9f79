// All sources: shares by weight against what came out, and the weights.
import { signal } from "@preact/signals";
import { act, call, nameOf, open, operators, poll, query, resource, sources } from "../api.js";
import { Field, Form, Sight, bar, button, chance, chip, choice, html, loading, operatorOptions, submit } from "../parts.js";
import { number, percent, t, today } from "../text.js";

const period = signal("today");
const shares = resource(() => query("stats/sources", period.value === "today" ? today() : {}));
const drafts = signal(new Map()); // by source: the texts of the weights that are being edited, by operator

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
  const assigned = row.operators.reduce((sum, entry) => sum + entry.contacts, 0);
  const edit = () => setDraft(row, new Map(made.operators.map((entry) => [entry.operator_id, String(entry.weight)])));
  return html`
    <div class="line"><h3><bdi>${row.source_name}</bdi></h3>${made?.bot_id && html`<bdi class="quiet">${made.bot_id}</bdi>`}
      <span class="end number">${t("contacts: {0}", number(row.total_contacts))}</span>
      ${row.pending > 0 && chip(t("waiting: {0}", number(row.pending)), "warn")}</div>
    ${draft ? html`<${Weights} row=${row} draft=${draft} />` : html`
      ${row.operators.length === 0 && html`<p class="quiet">${t("Nobody serves this source: its contacts wait.")}</p>`}
      ${row.operators.map((entry) => html`<${Share} key=${entry.operator_id} ...${entry} ...${markOf(entry, assigned)} />`)}
      <div class="line">
        ${made && button(t("Edit weights"), edit)}
        ${button(t("Who gets the next one?"), () => open("candidates", row.source_id, row.source_name))}
      </div>`}`;
}

/** What keeps the shares from following the weights: a difference that chance alone makes once in some hundred times. */
function markOf({ target_share, actual_share, operator_id, weight }, assigned) {
  const row = operators.value?.find((one) => one.operator_id === operator_id);
  const why = row && !row.is_active ? t("off") : row && row.load >= row.max_load ? t("full, {0} of {1}", row.load, row.max_load) : null;
  if (Math.abs(actual_share - target_share) <= chance(target_share, assigned)) return { mark: weight > 0 && why, kind: "quiet" };
  return { kind: "warn", mark: actual_share < target_share ? t("▼ less than by weight: {0}", why ?? t("limits, absence or changed weights"))
    : t("▲ more than by weight: others were full or off, or weights changed") };
}

function Share({ operator_name, weight, target_share, actual_share, mark, kind }) {
  return html`<div class="share">
    <div><bdi>${operator_name}</bdi> <small class="quiet">${t("weight {0}", number(weight))}</small></div>
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

function Weights({ row, draft }) {
  const valueOf = (text) => Number(text.replace(",", "."));
  const total = [...draft.values()].reduce((sum, text) => sum + (valueOf(text) || 0), 0);
  const set = (id, text) => setDraft(row, new Map(draft).set(id, text));
  const remove = (id) => setDraft(row, new Map([...draft].filter(([one]) => one !== id)));
  const others = operatorOptions().filter(([id]) => !draft.has(id));
  const save = (event) => {
    event.preventDefault();
    const entries = [...draft].map(([operator_id, text]) => ({ operator_id, weight: valueOf(text) }));
    act(() => call("PUT", `sources/${row.source_id}/operators`, entries), t("Weights saved"), () => setDraft(row));
  };
  // No number field: where the browser's language has a decimal point, it makes 25 of 2,5.
  return html`<form onsubmit=${save}>
    ${[...draft].map(([id, text]) => html`<div class="weight" key=${id}><bdi class="wide">${nameOf(id)}</bdi>
      <input inputmode="decimal" pattern="[0-9]+([.,][0-9]+)?" required value=${text} aria-label=${t("Weight of {0}", nameOf(id))}
        oninput=${(event) => set(id, event.target.value)} />
      <output class="number">${percent(total > 0 ? (valueOf(text) || 0) / total : 0)}</output>
      ${button(t("Remove"), () => remove(id), { "aria-label": t("Remove {0}", nameOf(id)) })}</div>`)}
    <div class="line">
      ${others.length > 0 && choice(t("Add"), { onchange: (event) => set(Number(event.target.value), "1") }, [["", t("choose…")], ...others], "")}
      ${submit(t("Save weights"))}
      ${button(t("Cancel"), () => setDraft(row))}
    </div>
  </form>`;
}
