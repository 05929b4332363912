// What draws attention: to a ticker's first alert, and to the loss of what alerts need.

import { articleOf } from "./alerts.js";
import { byId, setText } from "./dom.js";
import { count, percent, price } from "./format.js";
import { Switch } from "./prefs.js";

// Tones in Hz, one after the other: a strong alert rises, a loss falls.
const SOUNDS = {
  1: [880, 1109, 1319, 1760],
  2: [880, 1320],
  3: [880],
  loss: [440, 330, 220],
};
const TONE_S = 0.14;

export class Attention {
  #known = null;
  #audio = null;
  #lost = "";
  #mode = "";

  constructor(onChoose) {
    this.onChoose = onChoose;
    this.sound = new Switch(byId("sound"), "sound", false, (on) => on && this.#listen());
    byId("sound").addEventListener("click", () => this.sound.on && this.#play(2));
    // Browsers sound and ask for leave only after the viewer has done something on the page.
    for (const event of ["pointerdown", "keydown"]) {
      document.addEventListener(event, () => this.sound.on && this.#listen().resume());
    }
    byId("notify").addEventListener("click", () => this.#askLeave());
    if (!("Notification" in window) || !isSecureContext) {
      byId("notify").disabled = true;
      byId("notify").title = "Browsers notify only from this machine's own page or over HTTPS.";
    }
    const allowed = "Notification" in window && Notification.permission === "granted";
    this.notify = new Switch(byId("notify"), "notify", false);
    if (this.notify.on && !allowed) byId("notify").setAttribute("aria-pressed", "false");
  }

  /** Says, sounds and shows a ticker's first alert, once; what was there at the start is no news.
   * Returns the cards whose first alert is new. */
  update(cards, gone) {
    const alerted = cards.filter((card) => card.alerts.length);
    const first = this.#known ? alerted.filter((card) => !this.#known.has(card.ticker)) : [];
    this.#known ??= new Set();
    for (const ticker of gone) this.#known.delete(ticker);
    for (const card of alerted) this.#known.add(card.ticker);
    if (first.length) {
      const texts = first.map(tell);
      setText(byId("announcements"), texts.join(" "));
      this.#play(Math.min(...first.map((card) => card.alerts[0][1])));
      if (this.notify.on) first.forEach((card, i) => this.#notify(card, texts[i]));
    }
    this.#head();
    return first;
  }

  /** Takes what costs alerts now, empty where nothing does, and whether it is PAPER or LIVE. */
  see(lost, mode) {
    if (lost && !this.#lost && this.#known) this.#play("loss");
    if (Boolean(lost) === Boolean(this.#lost) && mode === this.#mode) return;
    this.#lost = lost;
    this.#mode = mode;
    this.#head();
  }

  /** Shows the state and the number of alerted tickers in the tab's title and icon. */
  #head() {
    const number = this.#known?.size ?? 0;
    const state = this.#lost ? "LOST" : "";
    document.title = [state, number ? count(number, "alert") : "", this.#mode, "newshead"].filter(Boolean).join(" · ");
    const icon = `/icon.svg?state=${this.#lost ? "lost" : "well"}&alerts=${number}`;
    if (byId("icon").getAttribute("href") !== icon) byId("icon").setAttribute("href", icon);
  }

  #listen() {
    this.#audio ??= new AudioContext();
    return this.#audio;
  }

  async #askLeave() {
    if (this.notify.on && (await Notification.requestPermission()) !== "granted") {
      this.notify.toggle();
      byId("notify").title = "The browser does not allow this page to notify.";
    }
  }

  #play(kind) {
    if (!this.sound.on) return;
    const audio = this.#listen();
    const start = audio.currentTime;
    SOUNDS[kind]?.forEach((frequency, i) => {
      const tone = audio.createOscillator();
      const loudness = audio.createGain();
      const at = start + i * TONE_S;
      tone.frequency.value = frequency;
      loudness.gain.setValueAtTime(0.0001, at);
      loudness.gain.exponentialRampToValueAtTime(0.2, at + 0.02);
      loudness.gain.exponentialRampToValueAtTime(0.0001, at + TONE_S - 0.01);
      tone.connect(loudness).connect(audio.destination);
      tone.start(at);
      tone.stop(at + TONE_S);
    });
  }

  #notify(card, text) {
    const shown = new Notification(text, {
      body: articleOf(card, card.alerts[0])?.headline ?? "", tag: card.ticker,
    });
    shown.onclick = () => {
      window.focus();
      this.onChoose(card.key);
    };
  }
}

function tell(card) {
  const [, priority, value, change] = card.alerts[0];
  const risen = change === null ? "" : `, ${percent(change)}`;
  return `Alert ${priority} for ${card.ticker}: ${price(value)} dollars${risen}.`;
}
