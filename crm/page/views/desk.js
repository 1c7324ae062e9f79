// What an operator has: who waits longest first. A new contact is seen without looking at the page, if that is switched on.
import { useEffect } from "preact/hooks";
import { effect, signal } from "@preact/signals";
import { me, open, opened, poll, pollHidden, query, resource } from "../api.js";
import { Rows, Since, html } from "../parts.js";
import { t } from "../text.js";
import { Steps, contactTitle, dueOf, nameOfLead, noteOf, step } from "./contact.js";

const oldestFirst = (status) => resource(() => query("contacts/", { limit: 1000, status }), (before, rows, keep) => keep(before, rows.reverse()));
export const fresh = oldestFirst("new");
const started = oldestFirst("in_progress");

export const reads = () => [fresh, started];
export function View() {
  useEffect(() => {
    document.addEventListener("keydown", onkeydown);
    return () => document.removeEventListener("keydown", onkeydown);
  }, []);
  return html`
    <div class="card line">${t("Tell me of new ones:")} <${Alert} kind="notification" text=${t("Notification")} /><${Alert} kind="sound" text=${t("Sound")} />
      <span class="bad" role="status">${refused.value && t("The browser does not let this page show notifications.")}</span>
      <span class="quiet keys">${KEYS().map(([key, does]) => html`<kbd>${key}</kbd> ${does} `)}</span></div>
    <h3>${t("new")}</h3><${Rows} items=${fresh.value} Row=${Contact} none=${t("No contacts.")} />
    <h3>${t("in_progress")}</h3><${Rows} items=${started.value} Row=${Contact} none=${t("No contacts.")} />`;
}

function Contact({ row: contact }) {
  return html`<li data-contact=${contact.id}>
    <strong class="fixed"><${Since} time=${contact.created_at} /></strong>
    ${contactTitle(contact, contact.message)}${dueOf(contact)}<${Steps} ...${contact} />
    ${noteOf(contact)}</li>`;
}

// --- by keyboard -----------------------------------------------------------------------------------------------------

const KEYS = () => [["J", t("next")], ["K", t("previous")], ["S", t("start")], ["C", t("close")]];

/** By the place of the key, so that S is S in a Russian layout too. */
function onkeydown(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || opened.value || event.target.closest("input, select, textarea")) return;
  const rows = [...document.querySelectorAll("main [data-contact]")], at = rows.indexOf(document.activeElement.closest("[data-contact]"));
  const move = { KeyJ: at + 1, KeyK: at < 0 ? rows.length - 1 : at - 1 }[event.code];
  if (move !== undefined) focus(rows[move] ?? rows[at]);
  if (event.code === "KeyS") act(rows[at] ?? rows[0], "new", "in_progress", t("Started")); // without a choice: who waits longest
  if (event.code === "KeyC") act(rows[at], null, "closed", t("Closed"));
}

const focus = (row) => row?.querySelector("button").focus();

async function act(row, from, to, done) {
  const id = Number(row?.dataset.contact), next = row?.nextElementSibling;
  if (!row || (from && !fresh.value.some((contact) => contact.id === id))) return;
  await step({ id, operator_id: from ? me.value.id : undefined }, to, done);
  setTimeout(() => focus(document.querySelector(`main [data-contact="${id}"]`) ?? next)); // when it is drawn
}

// --- without looking -------------------------------------------------------------------------------------------------

const alerts = signal(JSON.parse(localStorage.getItem("crm-alerts")) ?? {}); // what is switched on: {notification, sound}
const refused = signal(false); // by the browser
let audio;

function Alert({ kind, text }) {
  const turn = async () => {
    const on = !alerts.value[kind];
    refused.value = on && kind === "notification" && await window.Notification?.requestPermission() !== "granted";
    if (refused.value) return;
    alerts.value = { ...alerts.value, [kind]: on };
    localStorage.setItem("crm-alerts", JSON.stringify(alerts.value));
    if (on && kind === "sound") beep();
  };
  return html`<button type="button" role="switch" aria-checked=${String(Boolean(alerts.value[kind]))} onclick=${turn}>${text}</button>`;
}

/** Two short tones. A browser lets a page sound only after the first click or key on it. */
function beep() {
  audio ??= new AudioContext();
  audio.resume();
  [660, 880].forEach((frequency, position) => {
    const tone = new OscillatorNode(audio, { frequency }), volume = new GainNode(audio, { gain: 0.15 }), at = audio.currentTime + 0.16 * position;
    tone.connect(volume).connect(audio.destination);
    tone.start(at);
    tone.stop(at + 0.12);
  });
}

function notify(contact) {
  const told = new Notification(t("New contact: {0}", nameOfLead(contact.lead)), { body: contact.source.name, tag: `crm-${contact.id}` });
  told.onclick = () => {
    window.focus();
    open("contact", contact.id);
  };
}

let known; // the ids of those that were seen
effect(() => {
  const news = fresh.value?.filter(({ id }) => known && !known.has(id)) ?? [];
  known = fresh.value && new Set(fresh.value.map(({ id }) => id));
  if (news.length === 0) return;
  const { sound, notification } = alerts.peek();
  if (sound) beep();
  if (notification && window.Notification?.permission === "granted") news.slice(0, 3).forEach(notify);
});
effect(() => pollHidden(alerts.value.sound || alerts.value.notification));
