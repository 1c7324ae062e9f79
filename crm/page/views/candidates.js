// Opened over the page: who could get the next contact of a source, and why not the others.
import { useEffect } from "preact/hooks";
import { signal } from "@preact/signals";
import { opened, poll, query, sources } from "../api.js";
import { choice, html } from "../parts.js";
import { moment, percent, t } from "../text.js";

const asked = signal({}); // of which topic and lead, and when
export const path = (id) => query(`sources/${id}/candidates`, asked.value);
export const title = (_, name) => t("Who gets the next one of {0}?", name);
export function View({ answer: candidates }) {
  useEffect(() => () => (asked.value = {}), []);
  const ask = (values) => {
    asked.value = { ...asked.value, ...values };
    poll();
  };
  const source = sources.value?.find(({ id }) => id === opened.value?.id);
  const topics = [...new Set(source?.operators.map(({ topic }) => topic).filter(Boolean))];
  const { topic = "", at, lead_id } = asked.value;
  return html`
    <div class="line">
      <label>${t("When")}<input type="datetime-local" min="2000-01-01T00:00" max="2099-12-31T00:00"
        onchange=${({ target }) => target.checkValidity() && ask({ at: target.value && new Date(target.value).toISOString() })} /></label>
      ${topics.length > 0 && choice(t("Topic"), { onchange: ({ target }) => ask({ topic: target.value }) }, [["", t("any other")], ...topics.map((one) => [one, one])], topic)}
      ${source?.sticky === "prefer" && html`<label>${t("Number of the lead")}<input type="number" min="1" step="1" value=${lead_id}
        onchange=${({ target }) => target.checkValidity() && ask({ lead_id: target.value })} /></label>`}</div>
    ${at && html`<p class="quiet">${t("By the shifts of {0}; loads and switches are as of now.", moment(at))}</p>`}
    ${candidates.length === 0 ? html`<p class="quiet">${t("Nobody serves this source: its contacts wait.")}</p>` : who(candidates)}`;
}

function who(candidates) {
  return html`
    ${!candidates.some((one) => one.eligible) && html`<p class="warn">${t("Nobody can: the next one waits.")}</p>`}
    <ul class="rows">${[...candidates].sort((a, b) => b.probability - a.probability).map((one) => html`
      <li key=${one.operator_id}><bdi class="name wide">${one.operator_name}</bdi><span>${chance(one)}</span></li>`)}</ul>`;
}

function chance({ eligible, probability, load, max_load, reason }) {
  if (eligible) return t("with {0}, load {1} of {2}", percent(probability), load, max_load);
  return t("not: {0}", reason === "full" ? t("full, {0} of {1}", load, max_load) : t(reason));
}
