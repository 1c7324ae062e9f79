// What happens to contacts, heard as it happens: GET /events/stream. Of six connections to one host, which all tabs share,
// each stream takes one: so there is none while nobody can see the page.
export const TYPES = ["contact.assigned", "contact.queued", "contact.started", "contact.closed", "contact.overdue", "contact.unaccepted"];

let source, openedAt, failures = 0, notBefore = 0;

export const isHeard = () => source?.readyState === EventSource.OPEN;

/** Opens the stream, unless it is open or has failed a moment ago. tell: called when it opens, with each event, and when it breaks. */
export function listen(tell) {
  if (source || Date.now() < notBefore) return;
  source = new EventSource("events/stream");
  source.onopen = () => {
    openedAt = Date.now();
    tell();
  };
  source.onerror = () => { // not left to the browser: it asks once a second, and after some answers never again
    failures = Date.now() - openedAt > 30000 ? 0 : failures + 1;
    notBefore = Date.now() + 1000 * Math.min(60, 2 ** failures);
    hush();
    tell();
  };
  for (const type of TYPES) source.addEventListener(type, tell);
}

export function hush() {
  source?.close();
  source = openedAt = undefined;
}
