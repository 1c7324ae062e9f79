// Calls of the service, what was read last, and how it is. Whatever shows a signal is drawn again when that changes.
import { batch, signal } from "@preact/signals";
import { now, setClock, t, today, translated } from "./text.js";

export const role = signal("admin"); // of who is at the page
export const asks = signal(false); // for a key
export const notice = signal(null); // how the last thing went that was done: {kind, text}
export const away = signal(null); // {since, why} while the service doesn't answer
export const back = signal(false); // it answers again, since some seconds
let key = sessionStorage.getItem("crm-key");
export const hasKey = () => Boolean(key);

export class Problem extends Error {
  /** status: 0 when nobody answered. detail: what the service says; a list of fields when these are wrong. */
  constructor(status, detail) {
    const fields = Array.isArray(detail) ? detail : [];
    const text = fields.map(({ loc, msg }) => `${loc.at(-1)}: ${msg}`).join("; ") || detail;
    super(text?.replaceAll(/(lead_\w+): \1 /g, "$1 ") || t("error {0}", status));
    this.status = status;
    this.fields = Object.fromEntries(fields.map(({ loc, msg }) => [loc.at(-1), msg]));
  }
}

/** The answer. Raises Problem. age: seconds that the answer may be old. */
export async function call(method, path, body, age) {
  const headers = key ? { "X-API-Key": key } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (age) headers["Cache-Control"] = `max-age=${age}`;
  let answer, content;
  try {
    const signal = AbortSignal.timeout(15000);
    answer = await fetch(path, { method, headers, body: body === undefined ? null : JSON.stringify(body), signal });
    content = await answer.text();
  } catch {
    throw new Problem(0, t("no answer"));
  }
  setClock(answer.headers.get("Date"));
  try {
    content = content && JSON.parse(content);
  } catch {
    throw new Problem(answer.ok ? 0 : answer.status, t("no answer of this service"));
  }
  if (!answer.ok) throw new Problem(answer.status, content.detail);
  return content;
}

export function query(path, values) {
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return `${path}?${new URLSearchParams(pairs)}`;
}

// --- what is read -----------------------------------------------------------------------------------------------------

/** A signal with what the service answers at path(), read again by each poll of a view that names it; undefined until then.
 *  path: null when nothing is to be read now. take: makes the value of the one before and the answer. */
export const resource = (path, take = kept) => Object.assign(signal(), { path, take });

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const idOf = (row) => row.id ?? row.operator_id ?? row.source_id;
/** What was there before where nothing has changed, down to the rows, so that what shows it is not drawn again. */
function kept(before, fresh) {
  if (!Array.isArray(fresh) || !before) return same(before, fresh) ? before : fresh;
  const known = new Map(before.map((row) => [idOf(row), row]));
  const rows = fresh.map((row) => (same(known.get(idOf(row)), row) ? known.get(idOf(row)) : row));
  return rows.length === before.length && rows.every((row, position) => row === before[position]) ? before : rows;
}

// What several views show.
export const operators = resource(() => query("stats/operators", today()));
export const sources = resource(() => "sources/?limit=1000");
export const me = resource(() => "operators/", (before, [operator]) => kept(before, operator)); // who has an operator's key
export const nameOf = (id) => operators.value?.find((row) => row.operator_id === id)?.operator_name
  ?? (me.value?.id === id ? me.value.name : t("operator {0}", id));
/** What the service says, in the language of the page, with the names of operators. */
export const said = (message) => translated(message).replace(/(?:operator|оператор) (\d+)/g, (_, id) => nameOf(Number(id)));

/** What is open over the page: {kind, id, name, answer}; kind: the name of the module of views/ that shows it. */
export const opened = signal(null);
export function open(kind, id, name) {
  batch(() => {
    opened.value = { kind, id, name, answer: resource() };
    notice.value = null;
  });
  poll();
}

let wanted, timer, turn = 0, actedAt = 0;
export const readAt = signal(null);
/** shown: gives the resources that are shown; called by each poll. */
export function startPolling(shown) {
  wanted = shown;
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll(2)));
  poll(2);
}

/** Reads what is shown; then again in two seconds, while somebody can see it. */
export async function poll(age) {
  clearTimeout(timer);
  const own = ++turn;
  if (Date.now() - actedAt < 4000) age = undefined; // else one's own change could be missing again for a moment
  try {
    const reads = (await wanted()).map((one) => [one, one.path()]).filter(([, path]) => path);
    const answers = await Promise.all(reads.map(([, path]) => call("GET", path, undefined, age)));
    if (own !== turn) return;
    batch(() => {
      reads.forEach(([one], position) => (one.value = one.take(one.peek(), answers[position])));
      readAt.value = now();
      if (away.value) backAgain();
    });
  } catch (problem) {
    if (own === turn) refused(problem);
  } finally {
    if (own === turn && !document.hidden && !asks.value) timer = setTimeout(poll, 2000, 2);
  }
}

function backAgain() {
  away.value = null;
  back.value = true;
  setTimeout(() => (back.value = false), 8000);
}

function refused(problem) {
  const { status } = problem;
  if (status === 403 && role.value === "admin" && key) {
    role.value = "operator"; // perhaps: then it is shown its desk, and else asked for another key
    poll();
  } else if (status === 401 || status === 403) {
    asks.value = status === 401 || Boolean(key);
    away.value = null;
    notice.value = status === 403 ? bad(problem.message) : key ? bad(t("This key is not known.")) : null;
  } else if (status === 404 && opened.value) {
    opened.value = null;
    notice.value = bad(problem.message);
  } else if ([0, 502, 503, 504].includes(status)) {
    away.value = { since: away.value?.since ?? new Date().toISOString(), why: problem.message };
  } else {
    notice.value = bad(problem.message); // the next poll may go better; what is no Problem is a fault of this page
  }
}

// --- what is done -----------------------------------------------------------------------------------------------------

export const bad = (text) => ({ kind: "bad", text: said(text) });
export const CANCELLED = Symbol("cancelled");
let busy = false;
/** Does what a person asked for, but not twice at once; says how it went, and reads all afresh. Gives the Problem if there was one.
 *  text: what is said then, or makes it of the answer. done: is called before all is read. */
export async function act(work, text, done) {
  if (busy) return undefined;
  busy = true;
  notice.value = null;
  let problem;
  try {
    const answer = await work();
    if (answer !== CANCELLED) {
      notice.value = { kind: "good", text: typeof text === "function" ? text(answer) : text };
      done?.();
    }
  } catch (caught) {
    if (!(caught instanceof Problem)) throw caught;
    problem = caught;
    notice.value = bad(problem.status ? problem.message : t("No answer: it may be done or not."));
  } finally {
    actedAt = Date.now();
    busy = false;
  }
  await poll();
  return problem;
}

export function signIn(given) {
  sessionStorage.setItem("crm-key", given);
  location.reload();
}
export function signOut() {
  sessionStorage.removeItem("crm-key");
  location.reload(); // nothing of what one key saw is left for the next
}
