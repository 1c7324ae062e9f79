// Opened over the page: one contact with its history in words. And what other views show of a contact.
import { CANCELLED, Problem, act, call, nameOf, open, role, said } from "../api.js";
import { Sight, button, chip, choice, html, of, operatorOptions, share } from "../parts.js";
import { moment, soon, t } from "../text.js";

export const path = (id) => `contacts/${id}`;
export const title = ({ id }) => t("Contact {0}", id);
export function View({ answer: contact }) {
  return html`
    <div class="line">${chip(t(contact.status), KINDS[contact.status])}<bdi class="name wide">${contact.operator?.name ?? t("nobody")}</bdi><${Steps} ...${contact} /></div>
    ${dueOf(contact)}
    ${role.value === "admin" && contact.status !== "closed" && assignment(contact)}
    <p>${t("Lead")}: <button class="link" type="button" onclick=${() => open("lead", contact.lead.id)}><bdi>${nameOfLead(contact.lead)}</bdi></button></p>
    ${identifiers(contact.lead)}
    <p class="quiet"><bdi>${contact.source.name}</bdi> · ${moment(contact.created_at)}${contact.priority > 0 && ` · ${t("priority {0}", contact.priority)}`} ${topicOf(contact)}</p>
    ${noteOf(contact)}
    ${contact.message && html`<p class="message"><bdi>${contact.message}</bdi></p>`}
    <h3>${t("History")}</h3>
    <ul class="rows">${contact.history.map((entry) => html`
      <li key=${entry.id}><span class="quiet">${moment(entry.created_at)}</span><span class="wide">${explain(entry)}</span></li>`)}</ul>`;
}

const HAPPENED = { started: () => t("Started"), closed: () => t("Closed"), overdue: () => t("Waits for too long"), unaccepted: () => t("Nobody accepted it, it stays") };

/** A line of the history in words: "Distributed: Anna was drawn with 25 %; Boris was full, 10 of 10", "Started: Anna". */
function explain({ reason, operator_id, candidates }) {
  if (HAPPENED[reason]) return `${HAPPENED[reason]()}${operator_id === null ? "" : `: ${nameOf(operator_id)}`}.`;
  const left = candidates.filter(({ outcome }) => outcome === "chosen" || outcome === "not_drawn");
  const total = left.reduce((sum, { weight }) => sum + weight, 0);
  const isNoDraw = reason === "forced" || reason === "sticky" || (reason === "manual" && !candidates.some(({ outcome }) => outcome === "excluded"));
  const seen = candidates.map(({ outcome, operator_id: id, weight, load, max_load }) => {
    const name = nameOf(id);
    if (outcome === "chosen" && isNoDraw) return t("{0} got it, at {1} of {2}", name, load, max_load);
    if (outcome === "chosen") return t("{0} was drawn with {1}, at {2} of {3}", name, share(weight, total), load, max_load);
    if (outcome === "not_drawn") return isNoDraw ? null : t("{0} was not drawn ({1})", name, share(weight, total));
    if (outcome === "full") return t("{0} was full, {1} of {2}", name, load, max_load);
    if (outcome === "inactive") return t("{0} was off", name);
    if (outcome === "off_shift") return t("{0} was off shift", name);
    return outcome === "zero_weight" ? t("{0} has weight 0", name) : t("{0} had it before", name);
  });
  const begin = operator_id === null && reason === "released" ? t("Released, nobody could take it") : t(reason);
  return `${begin}: ${seen.filter(Boolean).join("; ") || t("nobody serves the source")}.`;
}

export const nameOfLead = (lead) => lead.name ?? lead.phones[0] ?? lead.emails[0] ?? lead.external_ids[0] ?? t("lead {0}", lead.id);
/** Those that are not its name. */
export const identifiers = (lead) => html`<div class="quiet"><bdi>${
  [...lead.phones, ...lead.emails, ...lead.external_ids].filter((one) => one !== nameOfLead(lead)).join(", ")}</bdi></div>`;

const KINDS = { pending: "warn", new: "good", in_progress: "good", closed: "quiet" };
export const Contact = ({ row, later }) => html`<${Sight} tag="li" row=${row} later=${later} draw=${drawn} />`;
const drawn = (contact) => html`${contactTitle(contact)}
  <span class="fixed">${chip(t(contact.status), KINDS[contact.status])}</span>
  <bdi class="fixed">${contact.operator?.name ?? t("nobody")}</bdi><${Steps} ...${contact} />`;

export const noteOf = ({ identity_note }) => identity_note && html`<p class="warn note"><bdi>${said(identity_note)}</bdi></p>`;

const topicOf = ({ topic }) => topic && html`<bdi class="chip topic quiet">${topic}</bdi>`;
export const dueOf = ({ due_at }) => due_at && html`<p class="warn">${t("to be accepted until {0}", soon(due_at))}</p>`;

/** message: all of it; else its begin. */
export const contactTitle = (contact, message) => html`<div class="wide">
  <button class="link" type="button" onclick=${() => open("contact", contact.id)}>№ ${contact.id} · <bdi class="name">${nameOfLead(contact.lead)}</bdi></button>
  ${contact.priority > 0 && html` ${chip(t("priority {0}", contact.priority), "warn")}`} ${topicOf(contact)}
  <div class="quiet"><bdi>${contact.source.name}</bdi> · ${moment(contact.created_at)}</div>
  ${message && html`<p class="message"><bdi>${message}</bdi></p>`}
  ${!message && contact.message && html`<bdi class="short">${contact.message.slice(0, 300)}</bdi>`}
</div>`;

export function Steps({ id, status, operator_id }) {
  // Keys, lest Enter on Start twice is Close.
  return html`<div class="line steps">
    ${status === "new" && button(t("Start"), () => step({ id, operator_id }, "in_progress", t("Started")), { key: "start", ...of(t("Start"), `№ ${id}`) })}
    ${status !== "closed" && button(t("Close"), () => step({ id }, "closed", t("Closed")), { key: "close", ...of(t("Close"), `№ ${id}`) })}
  </div>`;
}
/** operator_id: whose it was when it was shown, if it must still be: nobody starts what was just passed on. */
export const step = ({ id, operator_id }, status, done) => act(() => call("PATCH", `contacts/${id}/status`, { status, operator_id }).catch((problem) => {
  const [isPassedOn, holder] = problem.message.match(/ is (?:operator (\d+)'s|nobody's|another's) by now/) ?? [];
  if (!isPassedOn) throw problem;
  throw new Problem(409, holder ? t("Contact {0} was passed on meanwhile: {1} has it.", id, nameOf(Number(holder))) : t("Contact {0} was passed on meanwhile.", id));
}), done);

export function assignment(contact) {
  const hasIt = (assigned) => t("{0} has it now.", assigned.operator.name);
  const give = (event) => {
    event.preventDefault();
    const form = event.currentTarget, operator_id = Number(new FormData(form).get("operator_id"));
    act(() => assign(contact, { operator_id }), hasIt, () => form.reset());
  };
  return html`<div class="line">
    <form class="line" onsubmit=${give}>
      ${choice(t("To"), { name: "operator_id", required: true, ...of(t("To"), `№ ${contact.id}`) }, [["", t("choose…")], ...operatorOptions()])}
      <button ...${of(t("Assign"), `№ ${contact.id}`)}>${t("Assign")}</button>
    </form>
    ${button(contact.operator_id ? t("To anyone else") : t("To anyone"), () => act(() => assign(contact, {}), hasIt), of(t("To anyone"), `№ ${contact.id}`))}
  </div>`;
}

/** Not when somebody else has got it since it was shown; past a limit only after a question. */
async function assign({ id, operator_id }, body) {
  const contact = await call("GET", `contacts/${id}`);
  if (contact.operator_id !== operator_id) throw new Problem(409, t("Meanwhile {0} has it.", contact.operator?.name ?? t("nobody")));
  try {
    return await call("POST", `contacts/${id}/assign`, body);
  } catch (problem) {
    if (!/ is (full|inactive)/.test(problem.message)) throw problem;
    if (!confirm(t("{0}. Assign all the same?", said(problem.message)))) return CANCELLED;
    return call("POST", `contacts/${id}/assign`, { ...body, force: true });
  }
}
