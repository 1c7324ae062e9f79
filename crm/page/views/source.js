// Opened over the page: the settings of one source.
import { call } from "../api.js";
import { Field, Form, html, submit } from "../parts.js";
import { t } from "../text.js";

export const path = (id) => `sources/${id}`;
export const title = ({ name }) => t("Settings of {0}", name);
export function View({ answer: source }) {
  const { accept_within: within } = source;
  const save = ({ name, bot_id, description, sticky, accept_within, seconds, silence_pauses }) => call("PATCH", path(source.id), {
    name, bot_id: bot_id.trim() || null, description: description.trim() || null, sticky: sticky ? "prefer" : "off",
    accept_within: accept_within || seconds ? 60 * accept_within + Number(seconds) : null, silence_pauses: Boolean(silence_pauses),
  });
  const check = (name, text, checked) => html`<label class="check"><input type="checkbox" name=${name} defaultChecked=${checked} /> ${text}</label>`;
  return html`<${Form} class="form" work=${save} done=${t("Settings saved")} then=${() => null}>
    <${Field} text=${t("Source name")} name="name" required maxlength="100" defaultValue=${source.name} />
    <${Field} text=${t("Bot id")} name="bot_id" maxlength="100" defaultValue=${source.bot_id ?? ""} />
    <${Field} text=${t("Description")} tag="textarea" name="description" maxlength="1000" rows="2" defaultValue=${source.description ?? ""} />
    ${check("sticky", t("A lead that comes again goes first to who had it last"), source.sticky === "prefer")}
    <fieldset><legend>${t("Goes to another if not started within (empty: never)")}</legend><div class="line">
      <${Field} text=${t("minutes")} name="accept_within" type="number" min="0" max="43200" defaultValue=${within && (Math.floor(within / 60) || "")} />
      <${Field} text=${t("seconds")} name="seconds" type="number" min="0" max="59" defaultValue=${within && (within % 60 || "")} /></div></fieldset>
    ${check("silence_pauses", t("Who does not start in time is switched off"), source.silence_pauses)}
    ${submit(t("Save settings"))}<//>`;
}
