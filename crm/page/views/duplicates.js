// Leads that may be one person, side by side with what speaks for it, until somebody decides.
import { useEffect } from "preact/hooks";
import { signal } from "@preact/signals";
import { act, call, open, operators, poll, query, resource } from "../api.js";
import { Rows, button, html, of } from "../parts.js";
import { moment, number, t } from "../text.js";
import { identifiers, nameOfLead } from "./contact.js";
import { merge, mergedText, unmerge } from "./lead.js";
import { searchAgain } from "./leads.js";

const limit = signal(50);
// What was decided stays where it is until the view is left, lest the next pair slip under the pointer; and to be undone.
const pairs = resource(() => query("leads/duplicates", { limit: limit.value }), (before = [], fresh, keep) => {
  const rows = fresh.map((pair) => ({ id: `${pair.lead.id} ${pair.other.id}`, ...pair }));
  before.forEach((row, position) => row.decision && rows.splice(position, 0, row));
  return keep(before, rows);
});

export const reads = () => [operators, pairs];
export function View() {
  useEffect(() => () => {
    limit.value = 50;
    pairs.value = undefined;
  }, []);
  const more = () => {
    limit.value = Math.min(1000, limit.value + 50);
    poll();
  };
  return html`
    <p class="quiet">${t("A contact came with an identifier of each. Nothing is merged by itself: decide who is one person.")}</p>
    <${Rows} items=${pairs.value} Row=${Pair} none=${t("No two leads look like one person.")} />
    ${pairs.value?.filter(({ decision }) => !decision).length === limit.value && limit.value < 1000 && button(t("Show more"), more)}`;
}

/** decision: {text, undo}. */
const decide = (id, decision) => (pairs.value = pairs.value?.map((row) => (row.id === id ? { ...row, decision } : row)));

function Pair({ row: { id, lead, other, evidence, decision } }) {
  const tellApart = () => {
    const text = t("Leads {0} and {1} are two people.", lead.id, other.id);
    return act(() => call("DELETE", `leads/${lead.id}/duplicates/${other.id}`), text, () => decide(id, { text }));
  };
  const mergeInto = (into, gone) => {
    const text = mergedText(gone.id, into.id);
    const undo = () => unmerge(gone.id, into.id, () => decide(id, { text: t("Lead {0} is a lead of its own again.", gone.id) }));
    return act(() => merge(gone.id, into.id), text, () => {
      searchAgain();
      decide(id, { text, undo });
    });
  };
  const names = `${nameOfLead(lead)}, ${nameOfLead(other)}`;
  const side = (one, gone) => html`<div>
    <button class="link name" type="button" onclick=${() => open("lead", one.id)}><bdi>${nameOfLead(one)}</bdi></button>
    ${identifiers(one)}
    <p class="quiet">${t("Lead {0}, first seen {1}", one.id, moment(one.created_at))}<br />${t("contacts: {0}", number(one.contacts_count))}</p>
    ${button(t("Merge into this one"), () => mergeInto(one, gone), { ...of(t("Merge into this one"), `${nameOfLead(one)}, ${t("lead {0}", one.id)}`), disabled: Boolean(decision) })}
  </div>`;
  return html`<li class="pair">
    ${side(lead, other)}
    <div class="between">
      ${evidence.map(({ kind, value, contact_id }) => html`<p key=${`${kind} ${value}`}>${KINDS[kind]()}: <bdi class="name">${value}</bdi><br />
        ${button(t("came with contact {0}", contact_id), () => open("contact", contact_id), { class: "link" })}</p>`)}
      ${decision ? html`<p class="good">${decision.text}</p>${decision.undo && button(t("Undo"), decision.undo, of(t("Undo"), names))}`
    : button(t("Two people"), tellApart, of(t("Two people"), names))}
    </div>
    ${side(other, lead)}
  </li>`;
}

const KINDS = { phone: () => t("Phone"), email: () => t("E-mail"), external_id: () => t("Messenger id") };
