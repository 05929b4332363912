// The alerts: a group per ticker, the newest first alert on top, which unfolds to its rows.

import { changeOf, lastPoint } from "./card.js";
import { Roving, byId, element, setClass, setText } from "./dom.js";
import { count, day, direction, percent, price, time, unbroken } from "./format.js";

const MOST_SHOWN = 300;

/** The article that an alert's rating came from. */
export function articleOf(card, alert) {
  return card.others[alert[5]] ?? card.article;
}

export class AlertList {
  // A card's key → its group.
  #groups = new Map();
  #dated = false;

  constructor(onChoose) {
    this.list = byId("alerts");
    this.roving = new Roving(this.list);
    this.list.addEventListener("click", (event) => {
      const group = this.#groupOf(event.target);
      if (!group || event.target.closest("a")) return;
      if (event.target.closest(".unfold")) unfold(group);
      else onChoose(group.card.key);
    });
    this.list.addEventListener("keydown", (event) => {
      const group = this.#groupOf(event.target);
      if (event.key === "Enter" && event.target === group?.node) onChoose(group.card.key);
      if (event.key === "ArrowRight" && group?.unfolded === false) unfold(group);
      if (event.key === "ArrowLeft" && group?.unfolded) unfold(group);
    });
  }

  /** Shows the alerts of just these cards. */
  reset(cards, dated) {
    this.#groups.clear();
    this.list.replaceChildren();
    this.#dated = dated;
    this.update(cards, []);
  }

  /** Takes the alerts of cards that are new or changed. */
  update(cards, gone) {
    for (const key of gone) {
      this.#groups.get(key)?.node.remove();
      this.#groups.delete(key);
    }
    const alerted = cards.filter((card) => card.alerts.length);
    for (const card of alerted.sort((a, b) => firstAt(a) - firstAt(b))) this.#put(card);
    while (this.list.children.length > MOST_SHOWN) this.list.lastElementChild.remove();
    const groups = [...this.#groups.values()];
    const all = groups.reduce((sum, group) => sum + group.card.alerts.length, 0);
    const told = all ? `${count(all, "alert")} of ${count(groups.length, "ticker")}` : "";
    setText(byId("alert-count"), groups.length > MOST_SHOWN ? `${told}, the newest ${MOST_SHOWN} shown` : told);
    setText(byId("jump-count"), groups.length ? String(groups.length) : "");
    byId("no-alerts").hidden = all > 0;
    this.roving.settle();
  }

  #groupOf(target) {
    const node = target.closest("#alerts > li");
    return node && this.#groups.get(node.dataset.key);
  }

  #put(card) {
    let group = this.#groups.get(card.key);
    if (!group) {
      group = build(card.key);
      this.#groups.set(card.key, group);
    }
    const moved = !group.card || firstAt(group.card) !== firstAt(card);
    group.card = card;
    fill(group, this.#dated);
    if (moved) this.#place(group);
  }

  #place({ node, card }) {
    node.dataset.at = firstAt(card);
    let before = this.list.firstElementChild;
    while (before && (before === node || Number(before.dataset.at) > firstAt(card))) before = before.nextElementSibling;
    this.list.insertBefore(node, before);
  }
}

const firstAt = (card) => card.alerts[0][0];

function build(key) {
  const node = element("li");
  node.tabIndex = -1;
  node.dataset.key = key;
  const parts = {
    time: element("span", "quiet"),
    priority: element("span"),
    ticker: element("b", "ticker"),
    price: element("span", "price"),
    change: element("span", "change up"),
    unfold: element("button", "unfold"),
    best: element("span"),
    now: element("span"),
    headline: element("bdi", "headline"),
    rows: element("ol", "rows"),
  };
  parts.unfold.type = "button";
  parts.unfold.tabIndex = -1;
  parts.unfold.setAttribute("aria-expanded", "false");
  parts.headline.dir = "auto";
  parts.rows.hidden = true;
  const first = element("div", "first");
  first.append(parts.time, parts.priority, parts.ticker, parts.price, parts.change, parts.unfold);
  const since = element("div", "since quiet");
  since.append(parts.best, parts.now, parts.headline);
  node.append(first, since, parts.rows);
  return { node, parts, card: null, unfolded: false };
}

function fill({ parts, card, unfolded }, dated) {
  const [at, priority, value, change] = card.alerts[0];
  setText(parts.time, dated ? `${day(at)} ${time(at).slice(0, 5)}` : time(at));
  setText(parts.priority, String(priority));
  setClass(parts.priority, `priority p${priority}`);
  parts.priority.title = `priority ${priority}`;
  setText(parts.ticker, card.ticker);
  setText(parts.price, price(value));
  setText(parts.change, change === null ? "" : unbroken(percent(change)));
  setText(parts.unfold, `×${card.alerts.length}`);
  parts.unfold.setAttribute("aria-label", `${count(card.alerts.length, "alert")} of ${card.ticker}`);
  setText(parts.best, `best ${percent(card.best_pct)}`);
  const now = changeOf(card);
  const last = lastPoint(card);
  setText(parts.now, now === null ? "" : `now ${price(last[1])} ${percent(now)}`);
  setClass(parts.now, direction(now));
  setText(parts.headline, articleOf(card, card.alerts[0])?.headline ?? "");
  if (unfolded) parts.rows.replaceChildren(...card.alerts.map(row));
}

function row([at, priority, value, change, seconds]) {
  const made = element("li");
  made.append(
    element("span", "quiet", time(at)),
    element("span", `priority p${priority}`, String(priority)),
    element("span", "price", price(value)),
    element("span", "change up", change === null ? "" : percent(change)),
    element("span", "quiet", seconds === null ? "" : `${seconds} s`),
  );
  return made;
}

function unfold(group) {
  const { parts, card } = group;
  group.unfolded = !group.unfolded;
  // Folded, they would be most of what the page holds.
  parts.rows.replaceChildren(...(group.unfolded ? card.alerts.map(row) : []));
  parts.rows.hidden = !group.unfolded;
  parts.unfold.setAttribute("aria-expanded", String(group.unfolded));
}
