// Opened over the page: what was sent to one subscription, and what came of each try.
import { said } from "../api.js";
import { Rows, chip, html } from "../parts.js";
import { duration, moment, number, t } from "../text.js";

export const path = (id) => `subscriptions/${id}/deliveries`;
export const title = (_, name) => t("Sent to {0}", name);
export const View = ({ answer }) => html`<${Rows} items=${answer} Row=${Delivery} none=${t("Nothing was sent yet.")} />`;

const Delivery = ({ row }) => html`<li>
  <span class="quiet fixed">${moment(row.created_at)}</span><span class="wide">${what(row)}</span>
  ${outcome(row)}<span class="fixed number">${row.seconds !== null && took(row.seconds)}</span></li>`;

const KINDS = { delivered: "good", failed: "bad", passed_over: "warn" };
export const outcome = (delivery) => chip(t(delivery.outcome), KINDS[delivery.outcome] ?? "quiet");
const took = (seconds) => (seconds < 10 ? t("{0} s", number(Math.round(100 * seconds) / 100)) : duration(seconds));

/** Such as "event 12, try 2: answered 500". */
export function what({ kind, events, event_id, attempt, error }) {
  const sent = kind === "test" ? t("a test") : kind === "notice" ? t("that another was switched off")
    : events > 1 ? t("{0} events up to {1}", number(events), event_id) : t("event {0}", event_id);
  return [attempt > 1 ? t("{0}, try {1}", sent, attempt) : sent, error && said(error)].filter(Boolean).join(": ");
}
