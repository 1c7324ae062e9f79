// Opened over the page: who could get the next contact of a source, and why not the others.
import { html } from "../parts.js";
import { percent, t } from "../text.js";

export const path = (id) => `sources/${id}/candidates`;
export const title = (_, name) => t("Who gets the next one of {0}?", name);
export function View({ answer: candidates }) {
  if (candidates.length === 0) return html`<p class="quiet">${t("Nobody serves this source: its contacts wait.")}</p>`;
  return html`
    ${!candidates.some((one) => one.eligible) && html`<p class="warn">${t("Nobody can: the next one waits.")}</p>`}
    <ul class="rows">${[...candidates].sort((a, b) => b.probability - a.probability).map((one) => html`
      <li key=${one.operator_id}><bdi class="name wide">${one.operator_name}</bdi><span>${chance(one)}</span></li>`)}</ul>`;
}

function chance({ eligible, probability, load, max_load, reason }) {
  if (eligible) return t("with {0}, load {1} of {2}", percent(probability), load, max_load);
  return t("not: {0}", reason === "full" ? t("full, {0} of {1}", load, max_load) : t(reason));
}
