// The top: how the monitor fares, and what must be said over everything else.

import { byId, element, setText, setClass } from "./dom.js";
import { duration, now, time, whole } from "./format.js";
import { Parts, showBanner } from "./parts.js";

const STATES = { ready: "good", stale: "warn", connecting: "warn", "socket open": "warn", disconnected: "bad" };

const SLOW_CYCLE_MS = 1000;

// name → [its text, whether it deserves a look]
const FIGURES = {
  tickers: (s) => [whole(s.active_tickers), false],
  cycles: (s) => [whole(s.cycles), false],
  ticks: (s) => [whole(s.ticks), false],
  rows: (s) => [whole(s.rows), false],
  cycle: (s) => [`${Math.round(s.last_cycle_ms)} ms`, s.last_cycle_ms > SLOW_CYCLE_MS],
  reconnects: (s) => [whole(s.reconnects), false],
  "kept rows": (s) => [whole(s.kept_rows), s.kept_rows > 0],
  "clock off": (s, rule) => [`${signed(s.clock_difference_s)} s`, Math.abs(s.clock_difference_s) > rule.clock_difference_s],
};

/** One decimal, and no minus before a zero. */
function signed(value) {
  const text = value.toFixed(1);
  return text === "-0.0" ? "0.0" : text;
}

export class StatusBar {
  #status = null;
  #failing = [];
  #degraded = [];
  #parts = new Parts();
  #figures = new Map();

  constructor() {
    for (const name of Object.keys(FIGURES)) {
      const value = element("dd", "", "–");
      const pair = element("div");
      pair.append(element("dt", "", name), value);
      byId("figures").append(pair);
      this.#figures.set(name, value);
    }
  }

  show({ status, parts, failing, degraded, mended }, rule) {
    this.#status = status;
    this.#failing = failing;
    this.#degraded = degraded;
    this.#parts.show(parts, mended);
    if (status === null) return;
    const mode = ["PAPER", "LIVE"].includes(status.mode) ? status.mode : "UNKNOWN";
    document.body.dataset.mode = mode;
    setText(byId("mode"), mode === "UNKNOWN" ? "account unknown" : mode);
    byId("delayed").hidden = !status.delayed;
    byId("state").dataset.health = STATES[status.state] ?? "bad";
    setText(byId("account"), status.account);
    for (const [name, figure] of Object.entries(FIGURES)) {
      const [text, notable] = figure(status, rule);
      setText(this.#figures.get(name), text);
      setClass(this.#figures.get(name), notable ? "notable" : "");
    }
    byId("last-error").hidden = !status.last_error;
    setText(byId("last-error"), status.last_error);
  }

  /** What goes on with the time alone; returns what costs alerts, empty where nothing does. */
  tick(feed, problem, rule) {
    const status = this.#status;
    if (status) {
      setText(byId("state-text"), `${status.state} for ${duration(now() - status.state_since)}`);
    }
    this.#parts.tick();
    const said = this.#warning(feed, problem, rule);
    showBanner(said, this.#degraded.join("\n"));
    return said;
  }

  /** PAPER or LIVE, as far as it is known. */
  get mode() {
    const { mode } = document.body.dataset;
    return mode === "UNKNOWN" ? "" : mode;
  }

  #warning(feed, problem, rule) {
    if (feed.lost) return "This page has lost its server. What you see is old; it keeps trying.";
    if (problem) return `The database cannot be read, what you see is old: ${problem}`;
    if (!now()) return "";
    if (!this.#status) return "No price monitor has reported to this database yet.";
    const age = now() - this.#status.timestamp;
    if (age <= rule.stale_s) return this.#failing.join("\n");
    return `The price monitor has not reported since ${time(this.#status.timestamp)}: prices and alerts are missing.`;
  }
}
