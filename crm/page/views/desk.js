// What an operator has: new ones, and those in progress.
import { query, resource } from "../api.js";
import { html } from "../parts.js";
import { t } from "../text.js";
import { Newest } from "./contacts.js";

const fresh = resource(() => query("contacts/", { limit: 50, status: "new" }));
const started = resource(() => query("contacts/", { limit: 50, status: "in_progress" }));

export const reads = () => [fresh, started];
export const View = () => html`
  <h3>${t("new")}</h3><${Newest} contacts=${fresh.value} />
  <h3>${t("in_progress")}</h3><${Newest} contacts=${started.value} />`;
