// One card: built once, filled again when its ticker changes.

import { element, setClass, setProperty, setText } from "./dom.js";
import { count, day, direction, duration, now, percent, price, short, time, unbroken } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const SPARK = { width: 96, height: 30 };
const CALM = matchMedia("(prefers-reduced-motion: reduce)");
const CALM_STEPS = 6;
const RATING_CLASSES = { BUY: "buy", SELL: "sell" };
// The age of news is told while it is news.
const FRESH_S = 60;

export const lastPoint = (card) => card.points.at(-1) ?? null;
export const isOpen = (card) => card.closes !== null && now() < card.closes;
/** The newest price's change from the baseline; null before there is a baseline. */
export const changeOf = (card) => (card.baseline ? lastPoint(card)[3] : null);
export const headlineOf = (card) => card.article?.headline || "No news";

export function ratingClass(card) {
  return `rating ${RATING_CLASSES[card.recommendation] ?? ""}`;
}

/** When an article came out, as far as its source says. */
export const cameOut = (article) => article.published ?? article.detected;

/** How long after an article came out it was here; "" where its source does not say when. */
export function delay(article) {
  if (article.published === null) return "";
  const late = article.detected - article.published;
  return late < 0 ? "" : `+${late < 10 ? late.toFixed(1) : Math.round(late)} s`;
}

/** The company and the day, in a few words. */
export function facts(card) {
  return [
    card.country,
    card.float_shares ? `float ${short(card.float_shares)}` : "",
    card.previous_close ? `close ${price(card.previous_close)}` : "",
    card.gap_pct === null ? "" : `gap ${percent(card.gap_pct)}`,
    card.day_volume ? `day ${short(card.day_volume)}` : "",
  ].filter(Boolean);
}

export function build(key) {
  const node = element("li");
  node.setAttribute("role", "option");
  node.setAttribute("aria-selected", "false");
  node.tabIndex = -1;
  node.dataset.key = key;
  const parts = {
    time: element("span", "quiet time"),
    ticker: element("b", "ticker"),
    rating: element("span", "rating"),
    confidence: element("span", "quiet confidence"),
    condition: element("span", "condition"),
    price: element("span", "price"),
    change: element("span"),
    headline: element("bdi", "headline"),
    spark: document.createElementNS(SVG, "svg"),
    facts: element("span"),
    age: element("span", "age"),
    reason: element("span", "reason"),
    meta: element("span", "quiet meta"),
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
  const row = (name, ...children) => {
    const made = element("div", name);
    made.append(...children);
    return made;
  };
  const track = row("window", parts.bar);
  track.setAttribute("aria-hidden", "true");
  node.append(
    row("top", parts.time, parts.ticker, parts.rating, parts.confidence, parts.condition, parts.price, parts.change),
    row("middle", parts.headline, parts.spark),
    row("facts quiet", parts.facts, parts.age),
    row("foot", parts.reason, parts.meta, parts.left),
    track,
  );
  return { node, parts, card: null };
}

export function fill(item, rule, dated) {
  const { node, parts, card } = item;
  const last = lastPoint(card);
  const change = changeOf(card);
  const open = !dated && isOpen(card);
  const waits = !dated && card.opened === null && now() - card.began < FRESH_S;
  setClass(node, [open ? "open" : "", waits ? "waits" : "", card.alerts.length ? "alerted" : ""].join(" ").trim());
  const came = card.article ? cameOut(card.article) : card.began;
  setText(parts.time, dated ? `${day(came)} ${time(came).slice(0, 5)}` : time(came));
  setText(parts.ticker, card.ticker);
  setClass(parts.rating, ratingClass(card));
  setText(parts.rating, card.recommendation);
  setText(parts.confidence, card.confidence);
  setText(parts.condition, card.condition);
  setText(parts.price, last ? price(last[1]) : "–");
  setText(parts.change, change === null ? "" : percent(change));
  setClass(parts.change, `change ${direction(change)}`);
  setText(parts.headline, headlineOf(card));
  const about = card.article ? [card.article.source, delay(card.article)].filter(Boolean) : [];
  if (card.articles > 1) about.push(count(card.articles, "article"));
  setText(parts.facts, [...about, ...facts(card)].join(" · "));
  setText(parts.reason, unbroken(card.reason));
  setText(parts.meta, meta(card));
  if (open || waits) countDown(item);
  else {
    setText(parts.left, "");
    setText(parts.age, "");
  }
  drawSpark(parts, card, rule, change);
}

function meta(card) {
  const rows = count(card.rows, "row");
  // The reason may have it already.
  return card.baseline && !card.reason.includes("best") ? `best ${percent(card.best_pct)} · ${rows}` : rows;
}

/** What goes on with the time: the news's age, and what is left of an open window. */
export function countDown({ parts, card }) {
  setText(parts.age, card.article ? `${duration(now() - cameOut(card.article))} ago` : "");
  if (card.closes === null) return;
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
