// Opened over the page: where the same key is signed in, to end what should not be.
import { act, call, signOut } from "../api.js";
import { Rows, button, chip, html, of } from "../parts.js";
import { moment, t } from "../text.js";

export const path = () => "sessions/?limit=1000";
export const title = () => t("Where you are signed in");
export const View = ({ answer }) => html`<${Rows} items=${answer} Row=${Session} />`;

function Session({ row: { id, user_agent, created_at, last_used_at, current } }) {
  const end = () => (current ? signOut() : act(() => call("DELETE", `sessions/${id}`), t("Session ended")));
  return html`<li>
    <div class="wide"><bdi class="name">${browserOf(user_agent)}</bdi> ${current && chip(t("this one"), "good")}
      <div class="quiet">${t("since {0}, last used {1}", moment(created_at), moment(last_used_at))}</div></div>
    ${button(current ? t("Sign out") : t("End"), end, of(t("End"), browserOf(user_agent)))}
  </li>`;
}

/** As people know it, such as "Firefox, Windows": most call themselves by older names too. */
function browserOf(agent) {
  if (!agent) return t("unknown browser");
  const browser = ["Firefox", "Edg", "OPR", "Chrome", "Safari"].find((name) => agent.includes(`${name}/`));
  const system = ["Windows", "Android", "iPhone", "iPad", "Mac OS X", "Linux"].find((name) => agent.includes(name));
  return browser && system ? `${{ Edg: "Edge", OPR: "Opera" }[browser] ?? browser}, ${system}` : agent;
}
