// Who is told what happens: programs by webhooks, people by messages. How that goes, and what can be done about it.
import { useEffect, useRef } from "preact/hooks";
import { signal, useSignal } from "@preact/signals";
import { act, bad, call, nameOf, notice, open, operators, poll, query, reported, resource, said, sources } from "../api.js";
import { Field, Form, Rows, button, chip, choice, html, of, submit } from "../parts.js";
import { TYPES } from "../stream.js";
import { moment, t } from "../text.js";
import { outcome, what } from "./deliveries.js";

const subscriptions = resource(() => "subscriptions/?limit=1000");
const secret = signal(null); // the last one that was made, until it is hidden: {name, text}; the service never shows it again

export const reads = () => [operators, sources, subscriptions];
export const View = () => html`
  ${secret.value && html`<${Secret} ...${secret.value} />`}
  <${Rows} items=${subscriptions.value} Row=${Subscription} none=${t("Nobody is told yet: add a receiver here.")} />
  <${Add} />`;

const nameOfOne = ({ name, target }) => name ?? target;
const nameOfSource = (id) => sources.value?.find((source) => source.id === id)?.name ?? id;

function Subscription({ row }) {
  const { target, name, is_active, attempts, blocked_by, last_delivery: last } = row;
  return html`<li>
    <div class="wide told">
      <bdi class="name">${nameOfOne(row)}</bdi> ${state(row)}
      ${name && html`<div class="quiet"><bdi>${target}</bdi></div>`}
      <div class="quiet">${told(row)}</div>
      ${attempts > 0 && html`<div class="bad">${failure(row)}${blocked_by !== null && html`<${Behind} event=${blocked_by} />`}</div>`}
      <div>${last ? html`${moment(last.created_at)} · ${what(last)} ${outcome(last)}` : t("Nothing was sent yet.")}</div>
    </div>
    <${Acts} row=${row} name=${nameOfOne(row)} active=${is_active} />
  </li>`;
}

function state({ is_active, off_reason, attempts }) {
  if (!is_active) return off_reason ? chip(t("switched off"), "bad") : chip(t("paused"), "warn");
  return attempts > 0 ? chip(t("fails"), "bad") : chip(t("up to date"), "good");
}

function failure({ is_active, off_reason, attempts, next_attempt_at }) {
  if (off_reason === "gone") return t("The receiver says that it is gone for good (410).");
  if (off_reason) return t("It failed too often: {0} tries.", attempts);
  return is_active && next_attempt_at ? t("Failed tries: {0}, the next {1}.", attempts, moment(next_attempt_at)) : t("Failed tries: {0}.", attempts);
}

/** Since when: the time of the event that holds up the rest. */
function Behind({ event: id }) {
  const since = useSignal(null);
  useEffect(() => {
    call("GET", query("events/", { after: id - 1, limit: 1 })).then(([event]) => (since.value = event?.timestamp), reported);
  }, [id]);
  return since.value && ` ${t("Behind since {0}, by event {1}.", moment(since.value), id)}`;
}

function told({ kind, types, source_id, operator_id, language, with_lead }) {
  const which = types ? types.map((type) => t(type)).join(", ") : kind === "webhook" ? t("all that happens") : t("what somebody should act on");
  return html`${which}${source_id !== null && html` · ${t("Source")}: <bdi>${nameOfSource(source_id)}</bdi>`}${
    operator_id !== null && html` · ${t("Operator")}: <bdi>${nameOf(operator_id)}</bdi>`}${
    kind === "people" && ` · ${LANGUAGES[language]}`}${kind === "people" && with_lead && ` · ${t("with the lead and the message")}`}`;
}
const LANGUAGES = { en: "English", ru: "Русский" };

// --- what can be done ------------------------------------------------------------------------------------------------

function Acts({ row: { id, kind, blocked_by, attempts }, name, active }) {
  const at = (path = "") => `subscriptions/${id}${path}`;
  const turn = () => act(() => call("PATCH", at(), { is_active: !active }), active ? t("Paused: it keeps its place.") : t("Goes on from where it stood."));
  const again = () => act(() => call("PATCH", at(), { is_active: true }), t("Being tried again."));
  const skip = () => confirm(t("Skip event {0}? {1} is never told of it.", blocked_by, name))
    && act(() => call("POST", at("/skip")), t("Skipped: the later ones follow."));
  const rotate = () => act(() => call("POST", at("/rotate")).then(shown), t("For 24 hours the old secret signs too."));
  const remove = () => confirm(t("Delete {0}? What it was not told yet, it never is.", name)) && act(() => call("DELETE", at()), t("Deleted"));
  return html`<div class="line">
    ${button(t("Send a test"), () => sendTest(id, name), of(t("Send a test"), name))}
    ${button(t("Log"), () => open("deliveries", id, name), of(t("Log"), name))}
    ${button(active ? t("Pause") : t("Resume"), turn, of(active ? t("Pause") : t("Resume"), name))}
    ${active && attempts > 0 && button(t("Try now"), again, of(t("Try now"), name))}
    ${blocked_by !== null && button(t("Skip"), skip, of(t("Skip"), name))}
    ${kind === "webhook" && button(t("New secret"), rotate, of(t("New secret"), name))}
    ${button(t("Delete"), remove, of(t("Delete"), name))}
  </div>`;
}

const PATIENCE = 60000; // milliseconds until it is left to the log what becomes of a test
/** Says what came of it, when that is known: it is not sent by the call itself. */
async function sendTest(id, name) {
  let test;
  await act(async () => (test = await call("POST", `subscriptions/${id}/test`)), t("A test is being sent to {0}…", name));
  const begin = Date.now();
  while (test?.outcome === "waiting" && Date.now() - begin < PATIENCE) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    try {
      [test] = await call("GET", query(`subscriptions/${id}/deliveries`, { before_id: test.id + 1, limit: 1 }));
    } catch (problem) {
      return reported(problem);
    }
  }
  if (!test || test.outcome === "waiting") return undefined;
  const isGood = test.outcome === "delivered";
  notice.value = isGood ? { kind: "good", text: t("The test arrived at {0}.", name) } : bad(t("The test did not arrive at {0}: {1}", name, said(test.error)));
  return poll();
}

function shown(made) {
  if (made.secret) secret.value = { name: nameOfOne(made), text: made.secret };
  return made;
}

function Secret({ name, text }) {
  const copied = useSignal(false), card = useRef();
  useEffect(() => card.current.scrollIntoView({ block: "center" }), [text]); // the button may be far below
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    copied.value = true;
  };
  return html`<section ref=${card} class="card form">
    <label>${t("Secret of {0}, to check signatures with. It is shown only now.", name)}
      <input readonly value=${text} onfocus=${(event) => event.target.select()} /></label>
    <div class="line">${navigator.clipboard && button(t("Copy"), copy)}${button(t("I have kept it"), () => (secret.value = null))}
      <span class="good" role="status">${copied.value && t("Copied")}</span></div></section>`;
}

// --- to add one ------------------------------------------------------------------------------------------------------

const add = ({ name, target, source_id, operator_id, language, with_lead, ...chosen }) => {
  const types = TYPES.filter((type) => chosen[type]);
  return call("POST", "subscriptions/", {
    name: name.trim() || null, target, types: types.length > 0 ? types : null, language, with_lead: Boolean(with_lead),
    source_id: Number(source_id) || null, operator_id: Number(operator_id) || null,
  }).then(shown);
};

const check = (name, text) => html`<label class="check"><input type="checkbox" name=${name} /> ${text}</label>`;

function Add() {
  const kind = useSignal("webhook"), isPeople = kind.value === "people";
  return html`<section class="card form">
    <h3>${t("Add a receiver")}</h3>
    ${choice(t("Who is told"), { onchange: (event) => (kind.value = event.target.value) },
      [["webhook", t("a program, by webhook")], ["people", t("people, by Telegram, e-mail and others")]], kind.value)}
    <${Form} key=${kind.value} class="form" work=${add} done=${t("Receiver added")}>
      <${Field} text=${t("Name")} name="name" maxlength="100" />
      <${Field} text=${t("Address")} name="target" required maxlength="2000" autocomplete="off" spellcheck=${false}
        placeholder=${isPeople ? "tgram://BOT_TOKEN/CHAT_ID" : "https://hooks.example/crm"} />
      <p class="quiet">${isPeople ? html`<a href="https://github.com/caronc/apprise/wiki" target="_blank" rel="noreferrer">${t("How addresses are written")}</a>`
        : t("Each event is posted there as JSON, signed with a secret that is shown once.")}</p>
      <fieldset><legend>${isPeople ? t("Of what (none chosen: what somebody should act on)") : t("Of what (none chosen: all that happens)")}</legend>
        ${TYPES.map((type) => check(type, t(type)))}</fieldset>
      ${choice(t("Source"), { name: "source_id" }, [["", t("all")], ...(sources.value ?? []).map(({ id, name }) => [id, name])])}
      ${choice(t("Operator"), { name: "operator_id" }, [["", t("all")], ...(operators.value ?? []).map((row) => [row.operator_id, row.operator_name])])}
      ${isPeople && html`${choice(t("Language"), { name: "language" }, Object.entries(LANGUAGES))}
        ${check("with_lead", t("with the lead's name and phone, and the message"))}
        <p class="warn">${t("These then leave the service: whoever carries the messages can read them.")}</p>`}
      ${submit(t("Add receiver"))}
    <//></section>`;
}
