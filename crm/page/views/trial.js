// What the weights that are being edited would do, before they are saved.
import { useEffect } from "preact/hooks";
import { signal, useSignal } from "@preact/signals";
import { call, reported } from "../api.js";
import { html, of } from "../parts.js";
import { number, t } from "../text.js";

const contacts = signal(1000); // how many are tried, in whatever source

/** weights: another list each time that they are tried. */
export function Trial({ source, topic, weights }) {
  const result = useSignal(null);
  useEffect(() => {
    let isWanted = true; // not if others are tried meanwhile
    const show = (answer) => isWanted && (result.value = answer);
    call("POST", `sources/${source.source_id}/simulate`, { operators: weights, topic, contacts: contacts.value }).then(show, reported);
    return () => (isWanted = false);
  }, [weights, contacts.value]);
  const change = ({ target }) => target.reportValidity() && (contacts.value = Number(target.value));
  return html`<section class="trial" ...${of(t("Try"), source.source_name)}>
    <label>${t("How many contacts come")}<input type="number" min="1" max="10000" step="1" required defaultValue=${contacts.value} onchange=${change} /></label>
    <div role="status">${result.value && outcome(result.value)}</div></section>`;
}

function outcome({ contacts: count, operators, pending }) {
  return html`
    <p class="quiet">${t("If {0} contacts came at once now, and none were closed meanwhile. Nothing is saved.", number(count))}</p>
    <table><thead><tr><th scope="col">${t("Operator")}</th><th scope="col">${t("by weight")}</th><th scope="col">${t("would get")}</th></tr></thead>
      <tbody>${operators.map((one) => html`<tr key=${one.operator_id}>
        <th scope="row"><bdi>${one.operator_name}</bdi> <small class="quiet">${why(one)}</small></th>
        <td>${number(Math.round(10 * one.expected) / 10)}</td><td>${number(one.drawn)}</td></tr>`)}</tbody></table>
    <p class=${pending > 0 ? "warn" : "good"}>${pending > 0 ? t("{0} would wait: nobody has room for them.", number(pending)) : t("Nobody would have to wait.")}</p>`;
}

/** What keeps an operator from getting what it would by weight. */
function why({ reason, load, max_load, drawn }) {
  if (reason) return reason === "full" ? t("full, {0} of {1}", load, max_load) : t(reason);
  return load + drawn >= max_load ? t("then full, {0} of {1}", load + drawn, max_load) : "";
}
