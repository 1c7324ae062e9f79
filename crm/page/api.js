// Calls of the service, what was read last, and how it is. Whatever shows a signal is drawn again when that changes.
import { batch, computed, signal } from "@preact/signals";
import { hush, isHeard, listen } from "./stream.js";
import { now, setClock, t, today, translated } from "./text.js";

export const caller = signal(null); // who is at the page, as GET /session says
export const role = computed(() => caller.value?.role ?? "admin");
export const asks = signal(false); // for a key
export const notice = signal(null); // how the last thing went that was done: {kind, text}
export const away = signal(null); // {since, why} while the service doesn't answer
export const back = signal(false); // it answers again, since some seconds

export class Problem extends Error {
  /** status: 0 when nobody answered. detail: what the service says; a list of fields when these are wrong. */
  constructor(status, detail) {
    const fields = Array.isArray(detail) ? detail : [];
    const text = fields.map(({ loc, msg }) => `${loc.at(-1)}: ${msg}`).join("; ") || detail;
    super(text?.replaceAll(/(lead_\w+): \1 /g, "$1 ") || t("error {0}", status));
    this.status = status;
    this.detail = detail;
    this.fields = Object.fromEntries(fields.map(({ loc, msg }) => [loc.at(-1), msg.replace(/^lead_\w+ /, "")]));
  }
}

/** The answer. Raises Problem. age: seconds that the answer may be old. */
export async function call(method, path, body, age) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
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
 *  path: null when nothing is to be read now. take: makes the value of the one before, the answer, and `kept`. */
export const resource = (path, take = kept) => Object.assign(signal(), { path, take });

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
export const idOf = (row) => row.id ?? row.operator_id ?? row.source_id;
/** What was there before where nothing has changed, down to the rows, so that what shows it is not drawn again. */
function kept(before, fresh) {
  if (!Array.isArray(fresh) || !before) return same(before, fresh) ? before : fresh;
  const known = new Map(before.map((row) => [idOf(row), row]));
  const rows = fresh.map((row) => {
    const one = known.get(idOf(row));
    return one && same(one, row) ? one : row;
  });
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

const SHARED = 1000; // milliseconds that an answer may be old after an event: with many open pages, one reads for all
const PAUSE = 2000, QUIET_PAUSE = 10000; // to the next poll; while the stream is heard just for what is no event: weights, keys
let wanted, timer, turn = 0, isReading = false;
let actedAt = 0, toldAt = 0, polledAt = 0;
export const readAt = signal(null);
export const tick = signal(0); // for what says how long something takes already
/** shown: gives the resources that are shown; called by each poll. */
export function startPolling(shown) {
  wanted = shown;
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) pause();
    else if (asks.value) call("GET", "session").then(() => location.reload(), () => null); // in another tab they may have signed in
    else poll(2);
  });
  setInterval(() => document.hidden || (tick.value = now()), PAUSE);
  poll(2);
}

let ticker;
/** Whether to poll also while nobody can see the page. */
export function pollHidden(on) {
  if (on) {
    ticker ??= new Worker("static/ticker.js");
    ticker.onmessage = () => document.hidden && poll(2);
  } else if (ticker) ticker = ticker.terminate();
}

function pause() {
  clearTimeout(timer);
  hush();
}

/** Reads what is shown; then again after an event or some time, while somebody can see it. */
export async function poll(age) {
  clearTimeout(timer);
  if (asks.value) return;
  const own = ++turn;
  [isReading, polledAt] = [true, Date.now()];
  if (polledAt - actedAt < 4000) age = undefined; // else one's own change could be missing again for a moment
  try {
    caller.value ??= await call("GET", "session");
    if (!document.hidden && !away.value) listen(told);
    const reads = [...new Set(await wanted())].map((one) => [one, one.path()]).filter(([, path]) => path);
    const answers = await Promise.all(reads.map(([, path]) => call("GET", path, undefined, age)));
    if (own !== turn) return;
    batch(() => {
      reads.forEach(([one], position) => (one.value = one.take(one.peek(), answers[position], kept)));
      readAt.value = tick.value = now();
      if (away.value) backAgain();
    });
  } catch (problem) {
    if (own === turn) await refused(problem);
  } finally {
    if (own === turn) {
      isReading = false;
      if (document.hidden || asks.value) pause();
      else plan();
    }
  }
}

/** The next poll. After an event: at once, but not more often than once a second, and until no answer can be from before it. */
function plan() {
  clearTimeout(timer);
  if (toldAt > polledAt - SHARED && !away.value) timer = setTimeout(poll, Math.max(0, polledAt + SHARED + 50 - Date.now()), SHARED / 1000);
  else timer = setTimeout(poll, isHeard() && !away.value ? QUIET_PAUSE : PAUSE, 2);
}

function told() {
  const isPlanned = toldAt > polledAt - SHARED; // for an event before
  toldAt = Date.now();
  if (!isPlanned && !isReading && !document.hidden && !asks.value) plan();
}

function backAgain() {
  away.value = null;
  back.value = true;
  setTimeout(() => (back.value = false), 8000);
}

async function refused(problem) {
  const { status } = problem;
  if (status === 401) {
    asks.value = true;
    away.value = null;
    notice.value = caller.value ? bad(t("The session has ended, or its key was revoked.")) : null;
  } else if (status === 403 && await isSomebodyElse()) {
    location.reload();
  } else if (status === 404 && opened.value) {
    opened.value = null;
    if (notice.value?.kind !== "bad") notice.value = bad(problem.message); // else it says already why
  } else if ([0, 502, 503, 504].includes(status)) {
    away.value = { since: away.value?.since ?? new Date().toISOString(), why: problem.message };
  } else {
    notice.value = bad(problem.message); // the next poll may go better; what is no Problem is a fault of this page
  }
}

/** Whether in another tab somebody else has signed in since. */
const isSomebodyElse = () => call("GET", "session").then(
  ({ role, operator_id }) => caller.value && (role !== caller.value.role || operator_id !== caller.value.operator_id), () => false);

// --- what is done -----------------------------------------------------------------------------------------------------

export const bad = (text) => ({ kind: "bad", text: said(text) });
export const CANCELLED = Symbol("cancelled");
let busy = false;
/** Does what a person asked for, but not twice at once; says how it went, and reads all afresh. Gives the Problem if there was one.
 *  text: what is said then, or makes it of the answer. done: is called before all is read. beside: fields that say themselves what
 *  is wrong with them. */
export async function act(work, text, done, beside = []) {
  if (busy) return undefined;
  busy = true;
  notice.value = null;
  let problem;
  try {
    const answer = await work();
    if (answer !== CANCELLED) {
      if (text) notice.value = { kind: "good", text: typeof text === "function" ? text(answer) : text };
      done?.();
    }
  } catch (caught) {
    if (!(caught instanceof Problem)) throw caught;
    problem = caught;
    const wrong = Object.keys(problem.fields);
    if (wrong.length === 0 || wrong.some((name) => !beside.includes(name))) {
      notice.value = bad(problem.status ? problem.message : t("No answer: it may be done or not."));
    }
  } finally {
    actedAt = Date.now();
    busy = false;
  }
  await poll();
  return problem;
}

/** For what is read beside the polls: says what went wrong. */
export function reported(problem) {
  if (!(problem instanceof Problem)) throw problem;
  notice.value = bad(problem.message);
}

export const signOut = () => act(() => call("DELETE", "session"), null, () => location.reload()); // nothing of what it saw is left
