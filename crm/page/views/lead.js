// Opened over the page: one lead with its contacts, and for admins what was and can be done with its data.
import { useEffect } from "preact/hooks";
import { useSignal } from "@preact/signals";
import { CANCELLED, Problem, act, call, open, role } from "../api.js";
import { Field, Form, Rows, button, html, of, submit } from "../parts.js";
import { moment, number, t } from "../text.js";
import { Contact, identifiers, nameOfLead } from "./contact.js";
import { searchAgain } from "./leads.js";

export const path = (id) => `leads/${id}`; // of a merged lead the answer is the one that it is part of, with another id
export const title = (lead) => html`<bdi>${nameOfLead(lead)}</bdi>`;
export function View({ answer: lead }) {
  return html`${identifiers(lead)}
    ${role.value === "admin" && html`<${Data} key=${lead.id} lead=${lead} />`}
    <h3>${t("contacts: {0}", number(lead.contacts_count))}</h3>
    <${Rows} items=${lead.contacts} Row=${Contact} none=${t("No contacts.")} />
    ${lead.contacts.length < lead.contacts_count && html`<p class="quiet">${t("These are the newest {0}.", lead.contacts.length)}</p>`}`;
}

function Data({ lead }) {
  useEffect(() => {
    if (document.activeElement === document.body) document.getElementById("dialog-title").focus(); // the form is gone that had it
  }, [lead.is_forgotten]);
  return html`
    <div class="line"><span class="quiet">${t("Lead {0}, first seen {1}", lead.id, moment(lead.created_at))}</span>
      <a class="end" href=${`${path(lead.id)}/export`} download=${`lead-${lead.id}.json`}>${t("Export this lead (JSON)")}</a></div>
    ${lead.is_forgotten && html`<p class="warn">${t("This lead was forgotten: its name, identifiers and messages were deleted.")}</p>`}
    ${lead.acts.length > 0 && html`<h3>${t("What was done with its data")}</h3><ul class="rows">${lead.acts.map((one) => html`
      <li key=${one.id}><span class="quiet">${moment(one.created_at)}</span><span class="wide">${DONE[one.act](one)}</span>
        <bdi class="quiet">${t("by: {0}", nameOfKey(one.who))}</bdi>${nextTo(one, lead)}</li>`)}</ul>`}
    ${!lead.is_forgotten && html`<details><summary>${t("Merge or forget")}</summary><${Merge} lead=${lead} /><${Forget} lead=${lead} /></details>`}`;
}

// --- what was done ---------------------------------------------------------------------------------------------------

const DONE = {
  merged: ({ lead_id, other_id, contacts }) => t("Lead {0} was merged into lead {1}, with contacts: {2}.", lead_id, other_id, number(contacts)),
  unmerged: ({ lead_id, other_id, contacts }) => t("Lead {0} was taken out of lead {1} again, with contacts: {2}.", lead_id, other_id, number(contacts)),
  told_apart: ({ lead_id, other_id }) => t("Leads {0} and {1} are two people.", lead_id, other_id),
  forgotten: ({ lead_id, contacts }) => t("Lead {0} was forgotten, its contacts stay: {1}.", lead_id, number(contacts)),
};

const nameOfKey = (who) => ({ CRM_ADMIN_KEY: t("the key of the settings"), "without a key": t("somebody without a key") })[who]
  ?? who.replace(/^key (\d+)/, (_, id) => t("key {0}", id));

/** The undoing of a merge that still holds, else the way to the other lead. */
function nextTo({ id, lead_id, other_id }, lead) {
  const last = new Map(lead.acts.filter(({ act }) => act === "merged" || act === "unmerged").map((one) => [one.lead_id, one]));
  const isPart = (other) => last.get(other)?.act === "merged";
  if (last.get(lead_id)?.id === id && isPart(lead_id)) {
    return !lead.is_forgotten && button(t("Undo"), () => unmerge(lead_id, lead.id), of(t("Undo"), t("lead {0}", lead_id)));
  }
  const others = [lead_id, other_id].filter((other) => other && other !== lead.id && !isPart(other));
  return others.map((other) => button(t("lead {0}", other), () => open("lead", other), { class: "link" }));
}

// --- what can be done ------------------------------------------------------------------------------------------------

export const merge = (id, into) => call("POST", `${path(id)}/merge`, { into });
export const mergedText = (id, into) => t("Lead {0} is part of lead {1} now.", id, into);

/** Of what is part of lead `from` still: since that was shown, it may have been given back, and merged into another. */
export const unmerge = (id, from, done) => act(async () => {
  const { id: part } = await call("GET", path(id));
  if (part !== from) throw new Problem(409, t("Lead {0} is no part of lead {1} any more.", id, from));
  return call("POST", `${path(id)}/unmerge`);
}, t("Lead {0} is a lead of its own again.", id), () => {
  searchAgain();
  done?.();
});

/** What the service can't do is said beside the field of this name. */
const beside = (name) => (problem) => {
  throw [404, 409].includes(problem.status) ? new Problem(problem.status, [{ loc: [name], msg: problem.message }]) : problem;
};

function Merge({ lead }) {
  const mergeInto = async ({ into }) => {
    const other = await call("GET", path(into));
    const isMeant = other.id === lead.id || confirm(t("Merge lead {0} into lead {1} ({2})?", lead.id, other.id, nameOfLead(other)));
    return isMeant ? merge(lead.id, other.id) : CANCELLED;
  };
  return html`<${Form} class="form" work=${(fields) => mergeInto(fields).catch(beside("into"))} done=${({ id }) => mergedText(lead.id, id)} then=${searchAgain}>
    <h3>${t("Merge")}</h3>
    <p class="quiet">${t("Its contacts and identifiers go over to the other lead. It can be undone.")}</p>
    <${Field} text=${t("Number of the lead that stays")} name="into" type="number" min="1" step="1" required />${submit(t("Merge"))}<//>`;
}

function Forget({ lead }) {
  const typed = useSignal("");
  const forget = () => call("POST", `${path(lead.id)}/forget`).catch(beside("number"));
  return html`<${Form} class="form" work=${forget} done=${t("Forgotten")} then=${searchAgain}>
    <h3>${t("Forget")}</h3>
    <p class="warn">${t("Its name, identifiers, messages and notes are deleted for good, and nobody can undo it. That there were contacts stays, so no count changes.")}</p>
    <${Field} text=${t("Type {0}, the number of this lead, to confirm", lead.id)} name="number" inputmode="numeric" autocomplete="off"
      oninput=${({ target }) => (typed.value = target.value.trim())} />
    <button class="bad" disabled=${typed.value !== String(lead.id)}>${t("Forget this lead")}</button><//>`;
}
