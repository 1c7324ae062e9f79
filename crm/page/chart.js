// A picture of numbers over time, for the eye (uPlot on a canvas), the pointer, the keyboard and the ear.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { html } from "./parts.js";
import { lang, now, t } from "./text.js";

const MINUTE = 60, DAY = 86400; // seconds
const VENDOR = new URL("vendor/uplot/dist/", import.meta.url);
const added = (tag, properties) => new Promise((done, failed) => {
  document.head.append(Object.assign(document.createElement(tag), properties, { onload: done, onerror: failed }));
});
const style = (href) => added("link", { rel: "stylesheet", href }).catch(() => {}); // a picture without is better than none
await Promise.all([style(new URL("uPlot.min.css", VENDOR)), style(new URL("chart.css", import.meta.url))]);

let fetched;
/** uPlot, which is fetched when the first picture is drawn. */
function library() {
  fetched ??= added("script", { src: new URL("uPlot.iife.min.js", VENDOR) }).then(() => window.uPlot, (error) => {
    fetched = null; // the next picture tries again
    throw error;
  });
  return fetched;
}

const FORMATS = Object.fromEntries([["en", "en-GB"], ["ru", "ru"]].map(([name, locale]) => {
  const [time, date] = [{ hour: "2-digit", minute: "2-digit" }, { day: "numeric", month: "short" }];
  const format = (options) => new Intl.DateTimeFormat(locale, options);
  return [name, { time: format(time), date: format(date), day: format({ weekday: "short", ...date }), hour: format({ ...date, ...time }) }];
}));
/** Which step it is, such as "14:05", "3 Nov, 14:00–15:00" or "Mon, 3 Nov"; with atEnd the moment when it is over. */
function when(begin, step, atEnd) {
  const { time, day, hour } = FORMATS[lang.value];
  const end = begin + 1000 * step;
  if (step === DAY) return day.format((begin + end) / 2); // it begins an hour off midnight where the clocks were changed
  if (atEnd) return hour.format(Math.min(end, now()));
  return step === MINUTE ? time.format(begin) : hour.formatRange(begin, end);
}
const tick = (time, apart) => {
  const { date, time: clock } = FORMATS[lang.value], at = new Date(1000 * time);
  return (apart >= DAY || at.getHours() + at.getMinutes() === 0 ? date : clock).format(at);
};

/**
 * title, unit: what is counted, and in what. begins: of the steps, in ms. step: its seconds. until: where the axis ends, in ms.
 * series: [{name, colour, values, idle, how}]: colour is a variable of the style; values has a number or null for each step; idle
 *   stands above while no step is pointed at; how is "stack" (bars on one another), "bar", "inner" (a narrow bar), "area" or
 *   "limit" (a dashed line).
 * pointed: a signal with the time that is pointed at, or null; pictures may share it. atEnd: values are of the ends of the steps.
 * say, brief: a value as text, and at the axis. ticks: round numbers for the axis.
 * whole: what idle is of; without it, the last step is shown meanwhile. none: said instead of a picture that would be blank.
 */
export function Chart({ title, none, pointed, ...shown }) {
  const { unit, begins, step, series, say, atEnd, whole } = shown, last = begins.length - 1;
  const under = pointed.value === null ? -1 : Math.floor((pointed.value - begins[0]) / (1000 * step));
  const at = under < 0 || under > last ? null : under; // the step that is pointed at
  const read = at ?? (whole ? null : last); // the step whose values stand above the picture
  const point = (position) => (pointed.value = position === null ? null : begins[0] + 1000 * step * (position + 0.5));
  const told = (position) => `${when(begins[position], step, atEnd)}: ${series.map((one) => `${one.name} ${valueOf(one, position, say)}`).join(", ")}`;
  return html`<section class="card picture" aria-label=${title}>
    <h3>${title} <small class="quiet">${unit}</small></h3>
    ${none ? html`<p class="quiet">${none}</p>` : html`
      <p class="when quiet">${read === null ? whole : when(begins[read], step, atEnd)}</p>
      <ul class="legend">${series.map((one) => html`<li key=${one.name}><i class=${one.how} style=${{ color: `var(${one.colour})` }}></i>
        <bdi title=${one.name}>${one.name}</bdi> <strong>${read === null ? one.idle : valueOf(one, read, say)}</strong></li>`)}</ul>
      <div class="plot">
        <input type="range" min="0" max=${last} value=${at ?? last} aria-label=${t("{0}: when", title)} aria-valuetext=${told(at ?? last)}
          onfocus=${() => point(at ?? last)} onblur=${() => point(null)} oninput=${(event) => point(Number(event.currentTarget.value))} />
        <${Canvas} shown=${shown} at=${at} point=${point} />
      </div>
      <${Table} title=${title} ...${shown} />`}
  </section>`;
}

const valueOf = ({ values }, position, say) => (values[position] === null ? "–" : say(values[position]));

function Table({ title, begins, step, series, say, atEnd }) {
  const [open, setOpen] = useState(false);
  const table = () => html`<div class="scroll" tabindex="0" role="group" aria-label=${title}><table>
    <thead><tr><th scope="col">${t("When")}</th>${series.map(({ name }) => html`<th scope="col" key=${name}><bdi>${name}</bdi></th>`)}</tr></thead>
    <tbody>${begins.map((begin, position) => html`<tr key=${begin}><th scope="row">${when(begin, step, atEnd)}</th>
      ${series.map((one) => html`<td key=${one.name}>${valueOf(one, position, say)}</td>`)}</tr>`)}</tbody></table></div>`;
  const drawn = useMemo(() => open && table(), [open, begins, series, lang.value]); // not for each move of the pointer
  return html`<details ontoggle=${(event) => setOpen(event.currentTarget.open)}><summary>${t("As a table")}</summary>${drawn}</details>`;
}

/** What is drawn; at: the step that is pointed at; point: is called when the pointer goes to another one. */
function Canvas({ shown, at, point }) {
  const box = useRef(), plot = useRef(), latest = useRef();
  const [failed, setFailed] = useState(false);
  latest.current = { ...shown, point };
  const kinds = shown.series.map(({ how, colour }) => how + colour).join();
  useEffect(() => { // the plot is made anew only when it has other lines and bars
    const place = box.current, dark = matchMedia("(prefers-color-scheme: dark)"), end = new AbortController();
    library().then((uPlot) => {
      if (end.signal.aborted) return;
      const drawn = new uPlot(options(uPlot, place, latest), data(latest.current), place);
      plot.current = drawn;
      const move = ({ offsetX }) => latest.current.point(drawn.posToIdx(offsetX));
      drawn.over.addEventListener("pointermove", move);
      drawn.over.addEventListener("pointerdown", move); // of a finger that has not moved
      drawn.over.addEventListener("pointerleave", ({ pointerType }) => pointerType === "mouse" && latest.current.point(null));
      dark.addEventListener("change", () => drawn.redraw(), end);
      const watch = new ResizeObserver(() => drawn.setSize({ width: place.clientWidth, height: place.clientHeight }));
      watch.observe(place);
      end.signal.addEventListener("abort", () => {
        watch.disconnect();
        drawn.destroy();
      });
    }, () => !end.signal.aborted && setFailed(true));
    return () => {
      end.abort();
      plot.current = null;
    };
  }, [kinds]);
  useEffect(() => plot.current?.setData(data(shown)), [shown.series, shown.begins, lang.value]);
  useEffect(() => {
    const drawn = plot.current;
    if (!drawn || drawn.cursor.idx === at) return;
    drawn.setCursor(at === null ? { left: -10, top: -10 } : { left: drawn.valToPos(drawn.data[0][at], "x"), top: 0 }, false);
  }, [at]);
  return html`<div class="canvas" ref=${box} aria-hidden="true">${failed ? t("The picture could not be loaded.") : null}</div>`;
}

/** Positions of all steps up to the end of the axis, then the values of each series, drawn in this order: the highest bar of a stack first. */
function data({ begins, step, until, series, atEnd }) {
  const steps = Math.max(begins.length, Math.ceil((until - begins[0]) / (1000 * step)));
  const at = (position) => begins[0] / 1000 + step * (position + (atEnd ? 1 : 0.5));
  const values = ordered(series).map((one) => {
    const below = one.how === "stack" ? series.slice(0, series.indexOf(one)) : [];
    return Array.from({ length: steps }, (_, position) => (position < begins.length
      ? below.reduce((sum, { values }) => sum + (values[position] ?? 0), one.values[position]) : null));
  });
  return [Array.from({ length: steps }, (_, position) => at(position)), ...values];
}
const ordered = (series) => [...series.filter(({ how }) => how === "stack").reverse(), ...series.filter(({ how }) => how !== "stack")];

function options(uPlot, box, latest) {
  const probe = box.closest(".plot"); // a canvas knows no variables and no light-dark(): an element is asked
  const colour = (variable) => {
    probe.style.color = `var(${variable})`;
    return getComputedStyle(probe).color;
  };
  const font = "12px system-ui, sans-serif";
  const axis = { font, stroke: () => colour("--quiet"), ticks: { show: false }, grid: { width: 1, stroke: () => colour("--line") } };
  const bars = (part) => uPlot.paths.bars({ size: [part, 60, 1] });
  const kinds = {
    stack: { width: 0, paths: bars(0.9) }, bar: { width: 0, paths: bars(0.9) }, inner: { width: 0, paths: bars(0.4) },
    area: { width: 2 }, limit: { width: 2, dash: [6, 4] },
  };
  const drawn = ({ how, colour: variable }) => {
    const line = how === "area" || how === "limit", paint = () => colour(variable);
    return { ...kinds[how], points: { show: false }, ...(line ? { stroke: paint } : { fill: paint }),
      ...(how === "area" ? { fill: () => paint().replace(/^rgb\((.*)\)$/, "rgb($1, 0.2)") } : {}) };
  };
  return {
    width: box.clientWidth, height: box.clientHeight, legend: { show: false }, padding: [10, 26, 0, 0],
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false, setScale: false } },
    scales: {
      x: { range: () => [latest.current.begins[0] / 1000, Math.max(latest.current.until, latest.current.begins.at(-1) + 1000 * latest.current.step) / 1000] },
      y: { range: (_, least, most) => [0, Math.max(latest.current.ticks[0], (most ?? 0) * 1.05)] },
    },
    axes: [
      { ...axis, space: 70, size: 28, grid: { show: false }, values: (_, times, _axis, _space, apart) => times.map((time) => tick(time, apart)) },
      { ...axis, space: 34, incrs: latest.current.ticks, values: (_, values) => values.map((value) => latest.current.brief(value)),
        size: 64 }, // the same of all, so that pictures below one another have their times in line
    ],
    series: [{}, ...ordered(latest.current.series).map(drawn)],
  };
}
