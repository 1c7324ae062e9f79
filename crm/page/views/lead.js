// Opened over the page: one lead with its contacts.
import { Rows, html } from "../parts.js";
import { number, t } from "../text.js";
import { Contact, identifiers, nameOfLead } from "./contact.js";

export const path = (id) => `leads/${id}`;
export const title = (lead) => html`<bdi>${nameOfLead(lead)}</bdi>`;
export function View({ answer: lead }) {
  return html`${identifiers(lead)}
    <h3>${t("contacts: {0}", number(lead.contacts_count))}</h3>
    <${Rows} items=${lead.contacts} Row=${Contact} none=${t("No contacts.")} />`;
}
