// Earlier sessions: asked for by day or by ticker.

import { byId, element } from "./dom.js";

/** Hands the cards found, and the question as it stands in an address, to `onFound`; what is to be
 * said where there are none, to `onSay`. */
export class Earlier {
  #asked = 0;

  constructor(onFound, onSay) {
    this.onFound = onFound;
    this.onSay = onSay;
    byId("day").addEventListener("change", () => {
      byId("ticker").value = "";
      this.#ask();
    });
    byId("ticker").addEventListener("change", () => this.#ask());
  }

  async open() {
    const days = await this.#read("/earlier/days");
    if (!days) return;
    byId("day").replaceChildren(...days.map(([day, windows, alerts]) => {
      const option = element("option", "", `${day}: ${windows} windows, ${alerts} alerts`);
      option.value = day;
      return option;
    }));
    if (days.length) await this.#ask();
    else this.onSay("No earlier sessions are stored yet.");
  }

  async #ask() {
    const asked = ++this.#asked;
    const ticker = byId("ticker").value.trim().toUpperCase();
    const query = String(new URLSearchParams(ticker ? { ticker } : { day: byId("day").value }));
    const cards = await this.#read(`/earlier/windows?${query}`);
    // An answer that comes after the next question is no answer to it.
    if (!cards || asked !== this.#asked) return;
    this.onFound(cards, query);
    this.onSay("No window of that day or ticker is stored.");
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
