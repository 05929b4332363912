// The list of cards, one per ticker, newest first.

import { Roving, byId, element, setClass, setProperty, setText } from "./dom.js";
import { day, direction, duration, now, percent, price, unbroken } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const SPARK = { width: 96, height: 30 };
const CALM = matchMedia("(prefers-reduced-motion: reduce)");
const CALM_STEPS = 6;
const RATING_CLASSES = { BUY: "buy", SELL: "sell" };

export const lastPoint = (card) => card.points.at(-1) ?? null;
export const isOpen = (card) => card.closes !== null && now() < card.closes;
/** The newest price's change from the baseline; null before there is a baseline. */
export const changeOf = (card) => (card.baseline ? lastPoint(card)[3] : null);

export function ratingClass(card) {
  return `rating ${RATING_CLASSES[card.recommendation] ?? ""}`;
}

export class CardList {
  #items = new Map();
  #filter = "";
  #dated = false;
  #none = "";

  constructor(onSelect) {
    this.list = byId("cards");
    this.selected = null;
    this.onSelect = onSelect;
    this.roving = new Roving(this.list, (item) => this.select(item.dataset.key));
    this.list.addEventListener("click", (event) => event.target.closest("li")?.focus());
  }

  /** What is said while there is no card. */
  say(none) {
    this.#none = none;
    this.#tellCount();
  }

  /** Shows just these cards. `dated`: they are of several sessions, a ticker may be there twice. */
  reset(cards, rule, dated) {
    this.#items.clear();
    this.list.replaceChildren();
    this.#dated = dated;
    this.selected = null;
    this.update(cards, [], rule);
  }

  /** Takes cards that are new or changed, and forgets those that are gone. */
  update(cards, gone, rule) {
    for (const ticker of gone) {
      this.#items.get(ticker)?.node.remove();
      this.#items.delete(ticker);
    }
    // Oldest first: each new one goes to its place near the top.
    for (const card of [...cards].sort((a, b) => a.began - b.began)) this.#put(card, rule);
    this.#tellCount();
    this.roving.settle();
  }

  filter(text) {
    this.#filter = text.trim().toLowerCase();
    for (const { node, card } of this.#items.values()) node.hidden = !this.#passes(card);
    this.#tellCount();
    this.roving.settle();
  }

  select(key) {
    if (this.selected === key || !this.#items.has(key)) return;
    this.#items.get(this.selected)?.node.setAttribute("aria-selected", "false");
    this.selected = key;
    this.#items.get(key).node.setAttribute("aria-selected", "true");
    this.onSelect(this.#items.get(key).card);
  }

  selectFirst() {
    const first = this.list.querySelector("li:not([hidden])");
    if (first) this.select(first.dataset.key);
    return Boolean(first);
  }

  card(key) {
    return this.#items.get(key)?.card ?? null;
  }

  keyOf(card) {
    return this.#dated ? `${card.ticker} ${card.opened}` : card.ticker;
  }

  /** Counts the open windows down. */
  tick() {
    for (const node of this.list.querySelectorAll("li.open")) {
      countDown(this.#items.get(node.dataset.key));
    }
  }

  #passes(card) {
    return !this.#filter || `${card.ticker} ${card.headline}`.toLowerCase().includes(this.#filter);
  }

  #tellCount() {
    const shown = this.list.querySelectorAll("li:not([hidden])").length;
    const all = this.#items.size;
    setText(byId("count"), shown === all ? `${all} tickers` : `${shown} of ${all} tickers`);
    byId("nothing").hidden = shown > 0;
    setText(byId("nothing"), all ? "No ticker fits the filter." : this.#none);
  }

  #put(card, rule) {
    const key = this.keyOf(card);
    let item = this.#items.get(key);
    const moved = !item || item.card.began !== card.began;
    if (!item) {
      item = build(key);
      this.#items.set(key, item);
    }
    item.card = card;
    fill(item, rule, this.#dated);
    item.node.hidden = !this.#passes(card);
    if (moved) this.#place(item);
  }

  #place({ node, card }) {
    node.dataset.began = card.began;
    let before = this.list.firstElementChild;
    while (before && (before === node || Number(before.dataset.began) > card.began)) {
      before = before.nextElementSibling;
    }
    this.list.insertBefore(node, before);
  }
}

function build(key) {
  const node = element("li");
  node.setAttribute("role", "option");
  node.setAttribute("aria-selected", "false");
  node.tabIndex = -1;
  node.dataset.key = key;
  const parts = {
    ticker: element("b", "ticker"),
    rating: element("span", "rating"),
    confidence: element("span", "quiet"),
    price: element("span", "price"),
    change: element("span"),
    headline: element("bdi", "headline"),
    spark: document.createElementNS(SVG, "svg"),
    reason: element("span", "reason"),
    meta: element("span", "quiet"),
    left: element("span", "left"),
    bar: element("i"),
  };
  parts.headline.dir = "auto";
  parts.spark.setAttribute("viewBox", `0 0 ${SPARK.width} ${SPARK.height}`);
  parts.spark.setAttribute("aria-hidden", "true");
  parts.line = document.createElementNS(SVG, "polyline");
  parts.goal = document.createElementNS(SVG, "line");
  parts.goal.setAttribute("x2", SPARK.width);
  parts.spark.append(parts.goal, parts.line);
  const top = element("div", "top");
  top.append(parts.ticker, parts.rating, parts.confidence, parts.price, parts.change);
  const middle = element("div", "middle");
  middle.append(parts.headline, parts.spark);
  const foot = element("div", "foot");
  foot.append(parts.reason, parts.meta, parts.left);
  const track = element("div", "window");
  track.setAttribute("aria-hidden", "true");
  track.append(parts.bar);
  node.append(top, middle, foot, track);
  return { node, parts, card: null };
}

function fill(item, rule, dated) {
  const { node, parts, card } = item;
  const last = lastPoint(card);
  const change = changeOf(card);
  const open = !dated && isOpen(card);
  setClass(node, [open ? "open" : "", card.alerts.length ? "alerted" : ""].join(" ").trim());
  setText(parts.ticker, card.ticker);
  setClass(parts.rating, ratingClass(card));
  setText(parts.rating, card.recommendation);
  setText(parts.confidence, card.confidence);
  setText(parts.price, last ? price(last[1]) : "–");
  setText(parts.change, change === null ? "" : percent(change));
  setClass(parts.change, `change ${direction(change)}`);
  setText(parts.headline, card.headline || "No news");
  setText(parts.reason, unbroken(card.reason));
  const alerts = card.alerts.length ? ` · ${card.alerts.length} alerts` : "";
  setText(parts.meta, `${dated ? `${day(card.began)} · ` : ""}${card.rows} rows${alerts}`);
  if (open) countDown(item);
  else setText(parts.left, "");
  drawSpark(parts, card, rule, change);
}

/** What is left of an open window, in seconds and as a bar that shrinks in steps. */
function countDown({ parts, card }) {
  const left = card.closes - now();
  setText(parts.left, duration(left));
  const window_s = card.closes - card.opened;
  const steps = CALM.matches ? CALM_STEPS : window_s;
  setProperty(parts.bar, "--left", Math.max(0, Math.ceil((left / window_s) * steps) / steps));
}

function drawSpark(parts, card, rule, change) {
  const points = card.points;
  parts.spark.style.visibility = points.length > 1 ? "visible" : "hidden";
  if (points.length < 2) return;
  const goal = card.baseline * (1 + rule.change_pct / 100);
  const prices = points.map((point) => point[1]);
  const low = Math.min(...prices, card.baseline || Infinity);
  // Never less than the change that counts, so that a flat price looks flat.
  const high = Math.max(...prices, low * (1 + rule.change_pct / 100));
  const y = (value) => (SPARK.height - 2 - ((value - low) / (high - low)) * (SPARK.height - 4)).toFixed(1);
  const begin = points[0][0];
  // The whole width is the window.
  const length = Math.max(rule.window_s, points.at(-1)[0] - begin);
  const x = (at) => (((at - begin) / length) * SPARK.width).toFixed(1);
  parts.line.setAttribute("points", points.map((point) => `${x(point[0])},${y(point[1])}`).join(" "));
  parts.line.setAttribute("class", direction(change));
  parts.goal.setAttribute("y1", y(goal));
  parts.goal.setAttribute("y2", y(goal));
  parts.goal.style.visibility = goal ? "visible" : "hidden";
}
