// All operators: their load, switches and limits.
import { act, call, open, operators } from "../api.js";
import { Field, Form, Rows, Switch, button, chip, html, limit, loadBar, of, shift, submit } from "../parts.js";
import { number, t } from "../text.js";

export const reads = () => [operators];
export function View() {
  const add = ({ name, max_load }) => call("POST", "operators/", { name, max_load: Number(max_load) });
  return html`
    <${Form} class="card line" work=${add} done=${t("Operator added")}>
      <${Field} text=${t("Name")} name="name" required maxlength="100" />
      <${Field} text=${t("Limit")} ...${limit(10)} />
      ${submit(t("Add operator"))}
    <//>
    <${Rows} items=${operators.value} Row=${Operator} none=${t("No operators yet: add one here.")} />`;
}

function Operator({ row }) {
  return html`<li>
    <span class="wide"><bdi class="name">${row.operator_name}</bdi> ${!row.is_active && chip(t("off"), "quiet")} ${shift(row)}</span>
    ${loadBar(row)}
    <span class="fixed number">${t("today: {0}", number(row.total_contacts))}</span>
    <${Acts} id=${row.operator_id} name=${row.operator_name} active=${row.is_active} max=${row.max_load} />
  </li>`;
}

/** Apart from the row, because it changes seldom. */
function Acts({ id, name, active, max }) {
  const set = ({ max_load }) => call("PATCH", `operators/${id}`, { max_load: Number(max_load) });
  const release = () => confirm(t("Release {0}? All open contacts go to others or back to the queue.", name))
    && act(() => call("POST", `operators/${id}/release`), ({ released, reassigned, pending }) =>
      t("Released: {0}. To others: {1}, back to the queue: {2}.", released, reassigned, pending));
  return html`<div class="line">
    <${Switch} id=${id} name=${name} active=${active} />
    ${button(t("Shifts"), () => open("shifts", id, name), of(t("Shifts"), name))}
    <${Form} class="line" work=${set} done=${t("Limit changed")}>
      <${Field} text=${t("Limit")} ...${limit(max)} ...${of(t("Limit"), name)} />
      <button ...${of(t("Set"), name)}>${t("Set")}</button>
    <//>
    ${button(t("Release"), release, of(t("Release"), name))}
  </div>`;
}
