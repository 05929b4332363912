// The list of cards, one per ticker, in the order and with the filters that the viewer chose.

import { build, changeOf, countDown, fill, headlineOf, isOpen } from "./card.js";
import { Roving, byId, setText } from "./dom.js";
import { count } from "./format.js";
import { Switch, chosen, remember } from "./prefs.js";

const TOP_PX = 8;

const lastAlert = (card) => card.alerts.at(-1)?.[0] ?? 0;
const byAge = (a, b) => b.began - a.began;
// name → which of two cards comes first; the newer one where they are equal.
const ORDERS = {
  newest: () => 0,
  alerted: (a, b) => lastAlert(b) - lastAlert(a),
  change: (a, b) => (changeOf(b) ?? -1e9) - (changeOf(a) ?? -1e9),
  left: (a, b) => (isOpen(a) ? a.closes : 1e12) - (isOpen(b) ? b.closes : 1e12),
};
const CHIPS = {
  open: isOpen,
  buy: (card) => card.recommendation === "BUY",
  alerted: (card) => card.alerts.length > 0,
};

export class CardList {
  #items = new Map();
  #filter = "";
  #dated = false;
  #none = "";
  #above = 0;
  #order = chosen("order", "newest");
  #chips = [];

  constructor(onSelect) {
    this.list = byId("cards");
    this.selected = null;
    this.onSelect = onSelect;
    this.roving = new Roving(this.list, (item) => this.select(item.dataset.key));
    this.list.addEventListener("click", (event) => event.target.closest("li")?.focus());
    this.list.addEventListener("scroll", () => this.#tellAbove(), { passive: true });
    byId("above").addEventListener("click", () => this.list.scrollTo({ top: 0 }));
    if (!(this.#order in ORDERS)) this.#order = "newest";
    byId("order").value = this.#order;
    byId("order").addEventListener("change", () => {
      this.#order = byId("order").value;
      remember("order", this.#order);
      this.#sort();
    });
    for (const [name, passes] of Object.entries(CHIPS)) {
      const chip = new Switch(byId(`chip-${name}`), `chip.${name}`, false, () => this.#refilter());
      this.#chips.push([chip, passes]);
    }
    this.dense = new Switch(byId("dense"), "dense", false, (on) => document.body.classList.toggle("dense", on));
  }

  /** What is said while there is no card. */
  say(none) {
    this.#none = none;
    this.#tellCount();
  }

  /** Shows just these cards. `dated`: they are of earlier sessions, a ticker may be there twice. */
  reset(cards, rule, dated) {
    this.#items.clear();
    this.list.replaceChildren();
    this.#dated = dated;
    this.#above = 0;
    this.#tellAbove();
    this.selected = null;
    this.update(cards, [], rule);
  }

  /** Takes cards that are new or changed, and forgets those that are gone. */
  update(cards, gone, rule) {
    for (const key of gone) {
      this.#items.get(key)?.node.remove();
      this.#items.delete(key);
    }
    // Asked once, before anything changes: after each change the browser would lay all out anew.
    const scrolled = this.list.scrollTop > TOP_PX;
    // Oldest first: each new one goes to its place near the top.
    for (const card of [...cards].sort((a, b) => a.began - b.began)) this.#put(card, rule, scrolled);
    this.#tellCount();
    if (scrolled) this.#tellAbove();
    this.roving.settle();
  }

  filter(text) {
    this.#filter = text.trim().toLowerCase();
    this.#refilter();
  }

  select(key) {
    if (this.selected === key || !this.#items.has(key)) return;
    this.#items.get(this.selected)?.node.setAttribute("aria-selected", "false");
    this.selected = key;
    const { node, card } = this.#items.get(key);
    node.setAttribute("aria-selected", "true");
    this.onSelect(card);
  }

  selectFirst() {
    const first = this.list.querySelector("li:not([hidden])");
    if (first) this.select(first.dataset.key);
    return Boolean(first);
  }

  /** Brings a card into sight and selects it. */
  show(key) {
    const item = this.#items.get(key);
    if (!item) return;
    this.select(key);
    item.node.scrollIntoView({ block: "nearest" });
  }

  card(key) {
    return this.#items.get(key)?.card ?? null;
  }

  /** The keys of the cards that are shown, in order; all of them in the order they came is null. */
  get shown() {
    const nodes = [...this.list.children].filter((node) => !node.hidden);
    if (nodes.length === this.#items.size && this.#order === "newest") return null;
    return nodes.map((node) => node.dataset.key);
  }

  /** Counts the open windows down. */
  tick() {
    for (const node of this.list.querySelectorAll("li.open, li.waits")) {
      countDown(this.#items.get(node.dataset.key));
    }
  }

  #refilter() {
    for (const { node, card } of this.#items.values()) node.hidden = !this.#passes(card);
    this.#tellCount();
    this.#tellAbove();
    this.roving?.settle();
  }

  #passes(card) {
    if (this.#chips.some(([chip, passes]) => chip.on && !passes(card))) return false;
    return !this.#filter || `${card.ticker} ${headlineOf(card)}`.toLowerCase().includes(this.#filter);
  }

  #tellCount() {
    const shown = this.list.querySelectorAll("li:not([hidden])").length;
    const all = this.#items.size;
    setText(byId("count"), shown === all ? count(all, "ticker") : `${shown} of ${count(all, "ticker")}`);
    // An empty list is none: it would keep its room, and promise options to screen readers.
    this.list.hidden = !shown;
    byId("nothing").hidden = shown > 0;
    setText(byId("nothing"), all ? "No ticker fits the filter." : this.#none);
  }

  #tellAbove() {
    if (this.list.scrollTop <= TOP_PX) this.#above = 0;
    byId("above").hidden = !this.#above;
    setText(byId("above"), `${this.#above} new above`);
  }

  #put(card, rule, scrolled) {
    let item = this.#items.get(card.key);
    const known = Boolean(item);
    if (!known) {
      item = build(card.key);
      this.#items.set(card.key, item);
    }
    item.card = card;
    fill(item, rule, this.#dated);
    item.node.hidden = !this.#passes(card);
    this.#place(item);
    if (scrolled && !known && !item.node.hidden
      && item.node.offsetTop < this.list.offsetTop + this.list.scrollTop) this.#above += 1;
  }

  #compare(a, b) {
    return ORDERS[this.#order](a, b) || byAge(a, b);
  }

  #sort() {
    const items = [...this.#items.values()].sort((a, b) => this.#compare(a.card, b.card));
    this.list.replaceChildren(...items.map((item) => item.node));
  }

  #cardOf(node) {
    return this.#items.get(node.dataset.key).card;
  }

  #place({ node, card }) {
    const { previousElementSibling: previous, nextElementSibling: next } = node;
    const stays = node.isConnected
      && (!previous || this.#compare(this.#cardOf(previous), card) <= 0)
      && (!next || this.#compare(card, this.#cardOf(next)) <= 0);
    if (stays) return;
    const focused = document.activeElement === node;
    let before = this.list.firstElementChild;
    while (before && (before === node || this.#compare(this.#cardOf(before), card) < 0)) {
      before = before.nextElementSibling;
    }
    this.list.insertBefore(node, before);
    if (focused) node.focus();
  }
}
