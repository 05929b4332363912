// Puts the page together: the feed on one side, what is shown and the keys on the other.

import { AlertList, Attention } from "./alerts.js";
import { CardList } from "./cards.js";
import { Chart } from "./chart.js";
import { byId } from "./dom.js";
import { Earlier } from "./earlier.js";
import { Feed } from "./feed.js";
import { setNow } from "./format.js";
import { StatusBar } from "./status.js";

const TICK_MS = 500;
const WAITING = "Waiting for the first news of the session.";

// The present session, which goes on also while an earlier one is shown.
const session = new Map();
let rule = null;
let problem = "";
let live = true;
let query = "";

const status = new StatusBar();
const chart = new Chart();
const cards = new CardList(select);
const alerts = new AlertList(choose);
const attention = new Attention((ticker, at) => {
  showSession();
  choose(ticker, at);
});
const earlier = new Earlier((found, asked) => {
  if (live) return;
  query = asked;
  show(found);
}, (text) => !live && cards.say(text));

const feed = new Feed((update) => {
  rule = update.rule ?? rule;
  problem = update.problem;
  // While the database cannot be read, its clock goes on as it did.
  if (!problem) setNow(update.now);
  status.show(update.status, update.blind, rule);
  const gone = update.full ? [...session.keys()] : update.gone;
  for (const ticker of gone) session.delete(ticker);
  for (const card of update.cards) session.set(card.ticker, card);
  attention.update(update.cards, update.full ? gone.filter((ticker) => !session.has(ticker)) : gone);
  if (live) showUpdate(update);
  tick();
});

function showUpdate(update) {
  if (update.full) {
    const chosen = cards.selected;
    show(update.cards);
    if (chosen !== null) cards.select(chosen);
    return;
  }
  cards.update(update.cards, update.gone, rule);
  alerts.update(update.cards, update.gone);
  if (cards.selected !== null && !cards.card(cards.selected)) chart.hide();
  const current = update.cards.find((card) => card.ticker === cards.selected);
  if (current) chart.show(current, rule);
  else if (cards.selected === null) cards.selectFirst();
}

function show(found) {
  cards.reset(found, rule, !live);
  alerts.reset(found, !live);
  byId("cards-csv").href = `/csv/cards.csv?${query}`;
  byId("alerts-csv").href = `/csv/alerts.csv?${query}`;
  if (!cards.selectFirst()) chart.hide();
}

function select(card) {
  chart.show(card, rule);
  const asked = new URLSearchParams(query || { session_ticker: card.ticker });
  if (query) {
    asked.set("ticker", card.ticker);
    asked.set("opened", String(card.opened));
  }
  byId("chart-csv").href = `/csv/points.csv?${asked}`;
}

/** Shows the window an alert came from. */
function choose(ticker, at) {
  const item = [...byId("cards").children].find((node) => {
    const card = cards.card(node.dataset.key);
    return card.ticker === ticker && (live || (card.opened <= at && at <= card.points.at(-1)[0]));
  });
  if (!item) return;
  cards.select(item.dataset.key);
  item.scrollIntoView({ block: "nearest" });
}

function showSession() {
  if (live) return;
  setView(true);
  query = "";
  cards.say(WAITING);
  show([...session.values()]);
}

function showEarlier() {
  if (!live || !rule) return;
  setView(false);
  show([]);
  earlier.open();
}

function setView(toLive) {
  live = toLive;
  byId("show-session").setAttribute("aria-pressed", String(live));
  byId("show-earlier").setAttribute("aria-pressed", String(!live));
  byId("earlier").hidden = live;
}

function tick() {
  status.tick(feed, problem, rule);
  if (live) cards.tick();
  chart.tick(live);
}

const filter = byId("filter");
filter.addEventListener("input", () => cards.filter(filter.value));
byId("show-session").addEventListener("click", showSession);
byId("show-earlier").addEventListener("click", showEarlier);
byId("help-button").addEventListener("click", () => byId("help").showModal());

const KEYS = {
  j: () => cards.roving.move(1),
  k: () => cards.roving.move(-1),
  t: () => cards.roving.focus(),
  a: () => alerts.roving.focus(),
  f: () => chart.fit(),
  s: () => attention.toggleSound(),
  n: () => !byId("notify").disabled && attention.toggleNotify(),
  "/": () => filter.focus(),
  "?": () => byId("help").showModal(),
  1: showSession,
  2: showEarlier,
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select");
  if (event.key === "Escape" && event.target === filter) {
    filter.value = "";
    cards.filter("");
    cards.roving.focus();
  }
  if (typing || event.altKey || event.ctrlKey || event.metaKey || byId("help").open) return;
  const action = KEYS[event.key];
  if (action) {
    event.preventDefault();
    action();
  }
});

cards.say(WAITING);
setInterval(tick, TICK_MS);
