// The alerts: a list, newest first, and what draws attention to a ticker's first one.

import { Roving, byId, element, setText } from "./dom.js";
import { day, percent, price, time } from "./format.js";

const MOST_SHOWN = 300;

export class AlertList {
  // ticker → the times of its alerts; of the list only the newest are shown.
  #known = new Map();
  #dated = false;

  constructor(onChoose) {
    this.list = byId("alerts");
    this.roving = new Roving(this.list);
    const choose = (event) => {
      const row = event.target.closest("li");
      if (row) onChoose(row.dataset.ticker, Number(row.dataset.at));
    };
    this.list.addEventListener("click", choose);
    this.list.addEventListener("keydown", (event) => event.key === "Enter" && choose(event));
  }

  /** Shows the alerts of just these cards. */
  reset(cards, dated) {
    this.#known.clear();
    this.list.replaceChildren();
    this.#dated = dated;
    this.update(cards, []);
  }

  /** Takes the alerts of cards that are new or changed. */
  update(cards, gone) {
    for (const ticker of gone) this.#forget(ticker);
    const fresh = cards.flatMap((card) => this.#fresh(card));
    fresh.sort(([, a], [, b]) => a[0] - b[0]);
    for (const [ticker, alert] of fresh.slice(-MOST_SHOWN)) this.#place(build(ticker, alert, this.#dated));
    while (this.list.children.length > MOST_SHOWN) this.list.lastElementChild.remove();
    const all = [...this.#known.values()].reduce((sum, times) => sum + times.size, 0);
    setText(byId("alert-count"), all > MOST_SHOWN ? `the newest ${MOST_SHOWN} of ${all}` : String(all || ""));
    byId("no-alerts").hidden = all > 0;
    this.roving.settle();
  }

  #fresh(card) {
    const known = this.#known.get(card.ticker) ?? new Set();
    const fresh = card.alerts.filter((alert) => !known.has(alert[0]));
    for (const alert of fresh) known.add(alert[0]);
    if (known.size) this.#known.set(card.ticker, known);
    return fresh.map((alert) => [card.ticker, alert]);
  }

  #forget(ticker) {
    if (!this.#known.delete(ticker)) return;
    for (const row of [...this.list.children]) if (row.dataset.ticker === ticker) row.remove();
  }

  #place(row) {
    let before = this.list.firstElementChild;
    while (before && Number(before.dataset.at) > Number(row.dataset.at)) before = before.nextElementSibling;
    this.list.insertBefore(row, before);
  }
}

function build(ticker, [at, priority, value, change, seconds], dated) {
  const row = element("li");
  row.tabIndex = -1;
  row.dataset.ticker = ticker;
  row.dataset.at = at;
  const mark = element("span", `priority p${priority}`, String(priority));
  mark.title = `priority ${priority}`;
  row.append(
    element("span", "quiet", dated ? `${day(at)} ${time(at).slice(0, 5)}` : time(at)),
    mark,
    element("b", "ticker", ticker),
    element("span", "price", price(value)),
    element("span", "change up", change === null ? "" : percent(change)),
    element("span", "quiet seconds", seconds === null ? "" : `${seconds} s`),
  );
  return row;
}

/** Says, sounds and shows a ticker's first alert, once; what was there at the start is no news. */
export class Attention {
  #known = null;
  #audio = null;

  constructor(onChoose) {
    this.onChoose = onChoose;
    byId("sound").addEventListener("click", () => this.toggleSound());
    byId("notify").addEventListener("click", () => this.toggleNotify());
    if (!("Notification" in window) || !isSecureContext) {
      byId("notify").disabled = true;
      byId("notify").title = "Browsers notify only from this machine's own page or over HTTPS.";
    }
  }

  update(cards, gone) {
    const alerted = cards.filter((card) => card.alerts.length);
    const first = this.#known ? alerted.filter((card) => !this.#known.has(card.ticker)) : [];
    this.#known ??= new Set();
    for (const ticker of gone) this.#known.delete(ticker);
    for (const card of alerted) this.#known.add(card.ticker);
    if (!first.length) return;
    const texts = first.map((card) => tell(card));
    setText(byId("announcements"), texts.join(" "));
    if (isOn("sound")) this.#beep();
    if (isOn("notify")) first.forEach((card, i) => this.#notify(card, texts[i]));
  }

  toggleSound() {
    this.#audio ??= new AudioContext();
    this.#audio.resume();
    if (toggle("sound")) this.#beep();
  }

  async toggleNotify() {
    if (!isOn("notify") && (await Notification.requestPermission()) !== "granted") {
      byId("notify").title = "The browser does not allow this page to notify.";
      return;
    }
    toggle("notify");
  }

  #beep() {
    const start = this.#audio.currentTime;
    [880, 1320].forEach((frequency, i) => {
      const tone = this.#audio.createOscillator();
      const loudness = this.#audio.createGain();
      const at = start + i * 0.14;
      tone.frequency.value = frequency;
      loudness.gain.setValueAtTime(0.0001, at);
      loudness.gain.exponentialRampToValueAtTime(0.2, at + 0.02);
      loudness.gain.exponentialRampToValueAtTime(0.0001, at + 0.13);
      tone.connect(loudness).connect(this.#audio.destination);
      tone.start(at);
      tone.stop(at + 0.14);
    });
  }

  #notify(card, text) {
    const shown = new Notification(text, { body: card.headline, tag: card.ticker });
    shown.onclick = () => {
      window.focus();
      this.onChoose(card.ticker, card.alerts[0][0]);
    };
  }
}

function tell(card) {
  const [, priority, value, change] = card.alerts[0];
  const risen = change === null ? "" : `, ${percent(change)}`;
  return `Alert ${priority} for ${card.ticker}: ${price(value)} dollars${risen}.`;
}

const isOn = (id) => byId(id).getAttribute("aria-pressed") === "true";

function toggle(id) {
  const on = !isOn(id);
  byId(id).setAttribute("aria-pressed", String(on));
  return on;
}
