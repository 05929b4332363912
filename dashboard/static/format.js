// Numbers and times as a trader reads them, and the database's clock.

const NEW_YORK = new Intl.DateTimeFormat("en-GB", {
  timeZone: "America/New_York", hour: "2-digit", minute: "2-digit", second: "2-digit",
});
const NEW_YORK_DAY = new Intl.DateTimeFormat("en-GB", {
  timeZone: "America/New_York", day: "numeric", month: "short",
});
const WHOLE = new Intl.NumberFormat("en-US");

let serverNow = 0;
let heardAt = 0;

/** Takes the database's clock, in Unix seconds, as it was just now. */
export function setNow(now) {
  serverNow = now;
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

export function percent(value) {
  const text = Math.abs(value).toFixed(1);
  // A minus sign as wide as the plus.
  return `${value < 0 && text !== "0.0" ? "−" : "+"}${text} %`;
}

export function whole(value) {
  return WHOLE.format(value);
}

export function time(unix) {
  return NEW_YORK.format(unix * 1000);
}

export function day(unix) {
  return NEW_YORK_DAY.format(unix * 1000);
}

export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
}

/** Keeps a number and its percent sign on one line. */
export function unbroken(text) {
  return text.replaceAll(" %", "\u00a0%");
}

/** "up", "down" or "": the class that colours a change. */
export function direction(change) {
  return change === null || Math.abs(change) < 0.05 ? "" : change > 0 ? "up" : "down";
}
