// Earlier sessions: asked for by day or by ticker.

import { byId, element, setText } from "./dom.js";

/** Hands the cards found, and the question as it stands in an address, to `onFound`. */
export class Earlier {
  #asked = 0;

  constructor(onFound) {
    this.onFound = onFound;
    byId("day").addEventListener("change", () => {
      byId("ticker").value = "";
      this.#ask();
    });
    byId("ticker").addEventListener("change", () => this.#ask());
  }

  async open() {
    const days = await read("/earlier/days");
    byId("day").replaceChildren(...days.map(([day, tickers, alerts]) => {
      const option = element("option", "", `${day}: ${tickers} tickers, ${alerts} alerts`);
      option.value = day;
      return option;
    }));
    if (days.length) await this.#ask();
    else this.onFound([], "", "No earlier sessions are stored yet.");
  }

  async #ask() {
    const asked = ++this.#asked;
    const ticker = byId("ticker").value.trim().toUpperCase();
    const query = String(new URLSearchParams(ticker ? { ticker } : { day: byId("day").value }));
    setText(byId("nothing"), "Reading …");
    const cards = await read(`/earlier/windows?${query}`);
    // An answer that comes after the next question is no answer to it.
    if (asked === this.#asked) this.onFound(cards, query, "No window of that day or ticker is stored.");
  }
}

async function read(address) {
  const answer = await fetch(address);
  if (answer.ok) return answer.json();
  setText(byId("nothing"), await answer.text());
  byId("nothing").hidden = false;
  return [];
}
