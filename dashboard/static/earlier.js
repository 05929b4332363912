// Earlier sessions: asked for one by one, or by ticker.

import { byId, element } from "./dom.js";
import { count, day, time } from "./format.js";

/** Hands the cards found, and the question as it stands in an address, to `onFound`; what is to be
 * said where there are none, to `onSay`. */
export class Earlier {
  #asked = 0;

  constructor(onFound, onSay) {
    this.onFound = onFound;
    this.onSay = onSay;
    byId("session").addEventListener("change", () => {
      byId("ticker").value = "";
      this.#ask();
    });
    byId("ticker").addEventListener("change", () => this.#ask());
  }

  /** Shows the newest session, or the one that is named. */
  async open(session = "") {
    const sessions = await this.#read("/earlier/sessions");
    if (!sessions) return;
    byId("ticker").value = "";
    byId("session").replaceChildren(...sessions.map((each) => {
      const option = element("option", "", describe(each));
      option.value = each.key;
      return option;
    }));
    if (session) byId("session").value = session;
    if (!sessions.length) this.onSay("No earlier sessions are stored yet.");
    else if (byId("session").value) await this.#ask();
    else this.onSay("That session is not stored.");
  }

  async #ask() {
    const asked = ++this.#asked;
    const ticker = byId("ticker").value.trim();
    const query = String(new URLSearchParams(ticker ? { ticker } : { session: byId("session").value }));
    const cards = await this.#read(`/earlier/windows?${query}`);
    // An answer that comes after the next question is no answer to it.
    if (!cards || asked !== this.#asked) return;
    this.onFound(cards, query);
    this.onSay("No window of that session or ticker is stored.");
  }

  async #read(address) {
    this.onSay("Reading …");
    try {
      const answer = await fetch(address);
      if (answer.ok) return await answer.json();
      this.onSay(await answer.text());
    } catch {
      this.onSay("The page's server does not answer.");
    }
    return null;
  }
}

function describe({ begin, end, windows, alerts }) {
  const ends = day(begin) === day(end) ? time(end).slice(0, 5) : `${day(end)} ${time(end).slice(0, 5)}`;
  return `${day(begin)} ${time(begin).slice(0, 5)}–${ends}: ${count(windows, "window")}, ${count(alerts, "alert")}`;
}
