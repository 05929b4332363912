// Numbers and times as a trader reads them, and the database's clock.

const NEW_YORK = "America/New_York";
const WHOLE = new Intl.NumberFormat("en-US");
const SHORT = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });
// A time of day cannot be meant by more: it is no age that anyone knows.
const LONGEST_S = 366 * 86400;
// What a clock goes back by less is an update that came late: no time left grows again.
const LATE_S = 1;

let clock = null;
let date = null;
let threshold = Infinity;
let serverNow = 0;
let heardAt = 0;

/** Shows times in New York, or in the viewer's own zone. */
export function setLocal(local) {
  const timeZone = local ? undefined : NEW_YORK;
  clock = new Intl.DateTimeFormat("en-GB", { timeZone, hour: "2-digit", minute: "2-digit", second: "2-digit" });
  date = new Intl.DateTimeFormat("en-GB", { timeZone, day: "numeric", month: "short" });
}
setLocal(false);

/** The name of the zone that times are shown in. */
export function zone() {
  const { timeZone } = clock.resolvedOptions();
  return timeZone === NEW_YORK ? "New York" : timeZone.replaceAll("_", " ");
}

/** Takes the change in percent from which a row alerts. */
export function setThreshold(changePct) {
  threshold = changePct;
}

/** Takes the database's clock, in Unix seconds, as it was just now or, on a busy machine, a moment ago. */
export function setNow(told) {
  const back = now() - told;
  if (back > 0 && back < LATE_S) return;
  serverNow = told;
  heardAt = performance.now();
}

/** The database's clock now, in Unix seconds; 0 before it was heard of. */
export function now() {
  return serverNow ? serverNow + (performance.now() - heardAt) / 1000 : 0;
}

/** A US stock is quoted to the cent, below one dollar to a hundredth of it. */
export function decimals(value) {
  return value < 1 ? 4 : 2;
}

export function price(value) {
  return value.toFixed(decimals(value));
}

/** One decimal; two where one would put a change on the wrong side of the alert's threshold. */
export function percent(value) {
  const sides = (shown) => shown >= threshold === value >= threshold;
  let text = value.toFixed(1);
  if (!sides(Number(text))) text = value.toFixed(2);
  if (!sides(Number(text))) text = (value < threshold ? threshold - 0.01 : threshold).toFixed(2);
  const size = text.replace("-", "");
  // A minus sign as wide as the plus.
  return `${text.startsWith("-") && Number(size) ? "−" : "+"}${size} %`;
}

export function whole(value) {
  return WHOLE.format(value);
}

/** 12,345,678 as 12.3M. */
export function short(value) {
  return SHORT.format(value);
}

export function time(unix) {
  return clock.format(unix * 1000);
}

export function day(unix) {
  return date.format(unix * 1000);
}

export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s > LONGEST_S) return "an unknown time";
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
}

export function count(number, word) {
  return `${whole(number)} ${word}${number === 1 ? "" : "s"}`;
}

/** Keeps a number and its percent sign on one line, and gives it the page's minus sign. */
export function unbroken(text) {
  return text.replaceAll(" %", "\u00a0%").replace(/(^|\s)-(?=\d)/g, "$1−");
}

/** "up", "down" or "": the class that colours a change. */
export function direction(change) {
  return change === null || Math.abs(change) < 0.05 ? "" : change > 0 ? "up" : "down";
}
