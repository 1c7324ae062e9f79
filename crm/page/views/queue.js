// Who waits, in the order of handing out.
import { operators, resource } from "../api.js";
import { Rows, Sight, Since, html } from "../parts.js";
import { t } from "../text.js";
import { assignment, contactTitle } from "./contact.js";

const queue = resource(() => "contacts/?order=queue&limit=100");

export const reads = () => [operators, queue];
export const View = () => html`<${Rows} items=${queue.value} Row=${Waiting} none=${t("Nobody waits.")} />`;

const Waiting = ({ row }) => html`<${Sight} tag="li" row=${row} draw=${waiting} />`;
const waiting = (contact) => html`
  <span class="fixed">${queue.value.indexOf(contact) + 1}. <strong><${Since} time=${contact.created_at} /></strong></span>
  ${contactTitle(contact)}${assignment(contact)}`;
