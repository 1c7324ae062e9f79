// A contact is sent as a bot would.
import { call, said, sources } from "../api.js";
import { Field, Form, choice, html, loading, submit } from "../parts.js";
import { t } from "../text.js";

export const reads = () => [sources];
export function View() {
  if (!sources.value) return loading();
  return html`<${Form} class="card form" work=${send} done=${told}>
    ${choice(t("Source"), { name: "source_id", required: true }, sources.value.map((source) => [source.id, source.name]))}
    <${Field} text=${t("Messenger id")} name="lead_external_id" maxlength="255" defaultValue="test:1" />
    <${Field} text=${t("Phone")} name="lead_phone" maxlength="255" />
    <${Field} text=${t("E-mail")} name="lead_email" maxlength="255" />
    <${Field} text=${t("Name")} name="lead_name" maxlength="255" />
    <${Field} text=${t("Message")} tag="textarea" name="message" maxlength="10000" rows="3" />
    <${Field} text=${t("Topic")} name="topic" maxlength="100" />
    <${Field} text=${t("Priority (0-9)")} name="priority" type="number" min="0" max="9" defaultValue="0" required />
    ${submit(t("Send"))}
  <//>`;
}

const send = ({ source_id, priority, ...texts }) => call("POST", "contacts/", {
  ...Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== "")),
  source_id: Number(source_id), priority: Number(priority), event_id: `page-${Date.now()}-${Math.random()}`,
});
const told = ({ id, operator, identity_note }) => [
  operator ? t("Contact {0}: {1} got it.", id, operator.name) : t("Contact {0}: nobody has room, it waits.", id),
  identity_note && said(identity_note),
].filter(Boolean).join(" ");
