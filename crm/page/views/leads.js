// Leads are searched, and opened with their contacts of all sources.
import { useEffect } from "preact/hooks";
import { signal } from "@preact/signals";
import { call, notice, open, operators, query, reported, role } from "../api.js";
import { Field, Rows, html, submit } from "../parts.js";
import { number, t } from "../text.js";
import { identifiers, nameOfLead } from "./contact.js";

const leads = signal(), search = signal("");

export const reads = () => (role.value === "admin" ? [operators] : []);
export function View() {
  useEffect(() => { if (!leads.value) find(""); }, []);
  const onsubmit = (event) => {
    event.preventDefault();
    find(new FormData(event.currentTarget).get("q").trim());
  };
  return html`
    <form class="card line" role="search" onsubmit=${onsubmit}>
      <${Field} text=${t("Name, phone, e-mail or id")} name="q" type="search" maxlength="255" defaultValue=${search.value} />
      ${submit(t("Search"))}
    </form>
    <${Rows} items=${leads.value} Row=${Lead} none=${t("No lead found.")} />`;
}

function find(text) {
  search.value = text;
  notice.value = null;
  return read();
}

let turn = 0;
async function read() {
  const text = search.value, own = ++turn;
  const isPhone = /^\+?\d{10,}$/.test(text.replace(/[\s().-]/g, "")); // however it is written
  try {
    let found = isPhone ? await call("GET", query("leads/", { phone: text })).catch(() => []) : [];
    if (found.length === 0) found = await call("GET", query("leads/", { q: text, limit: 50 }));
    if (own === turn) leads.value = found; // else a later one was faster
  } catch (problem) {
    reported(problem);
  }
}
/** After a lead was changed: no poll reads what was found. */
export const searchAgain = () => leads.value && read();

function Lead({ row }) {
  return html`<li>
    <div class="wide"><button class="link name" type="button" onclick=${() => open("lead", row.id)}><bdi>${nameOfLead(row)}</bdi></button>
      ${identifiers(row)}</div>
    <span class="number">${t("contacts: {0}", number(row.contacts_count))}</span>
  </li>`;
}
