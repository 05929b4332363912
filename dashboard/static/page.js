// Puts the page together: the feed on one side, what is shown and the keys on the other.

import { AlertList } from "./alerts.js";
import { Attention } from "./attention.js";
import { CardList } from "./cards.js";
import { Chart } from "./chart.js";
import { Details } from "./details.js";
import { byId, setText } from "./dom.js";
import { Earlier } from "./earlier.js";
import { Feed } from "./feed.js";
import { now, setLocal, setNow, setThreshold, zone } from "./format.js";
import { editTemplate, linked } from "./links.js";
import { Switch } from "./prefs.js";
import { StatusBar } from "./status.js";
import { followTheme } from "./theme.js";

const TICK_MS = 500;
const WAITING = "Waiting for the first news of the session.";
const PHONE = matchMedia("(max-width: 760px)");

// The present session, which goes on also while an earlier one is shown.
const session = new Map();
let sessionKey = "";
let rule = null;
let problem = "";
let read = false;
let live = true;
let query = "";
let shown = [];
// What the address names is shown once it is there.
let awaited = linked();

followTheme(() => chart.redraw());
const status = new StatusBar();
const chart = new Chart();
const details = new Details();
const cards = new CardList((card) => showChart(card));
const alerts = new AlertList((key) => {
  cards.show(key);
  toChart();
});
const attention = new Attention((key) => {
  showSession();
  cards.show(key);
});
const follow = new Switch(byId("follow"), "follow", true);
const local = new Switch(byId("zone"), "local", false, (on) => {
  setLocal(on);
  setText(byId("zone"), `Times: ${zone()}`);
  if (rule) redraw();
});
const earlier = new Earlier((found, asked) => {
  if (live) return;
  query = asked;
  show(found);
}, (text) => !live && cards.say(text));

const feed = new Feed((update) => {
  rule = update.rule ?? rule;
  setThreshold(rule.change_pct);
  problem = update.problem;
  // While the database cannot be read, its clock goes on as it did.
  if (!problem || !now()) setNow(update.now);
  read ||= !problem;
  sessionKey = update.session;
  status.show(update, rule);
  const gone = update.full ? [...session.keys()] : update.gone;
  for (const ticker of gone) session.delete(ticker);
  for (const card of update.cards) session.set(card.key, card);
  const first = attention.update(update.cards, update.full ? gone.filter((ticker) => !session.has(ticker)) : gone);
  if (live) showUpdate(update, first);
  if (awaited) showLinked();
  tick();
});

function showUpdate(update, first) {
  cards.say(read ? WAITING : "The database cannot be read yet.");
  if (update.full) {
    const chosen = cards.selected;
    show(update.cards);
    if (chosen !== null) cards.select(chosen);
    return;
  }
  shown = [...session.values()];
  cards.update(update.cards, update.gone, rule);
  alerts.update(update.cards, update.gone);
  if (cards.selected !== null && !cards.card(cards.selected)) hideChart();
  const current = update.cards.find((card) => card.key === cards.selected);
  if (follow.on && first.length) cards.show(first.at(-1).key);
  else if (cards.selected === null) cards.selectFirst();
  if (current?.key === cards.selected && current) showChart(current);
}

function show(found) {
  shown = found;
  cards.reset(found, rule, !live);
  alerts.reset(found, !live);
  if (!cards.selectFirst()) hideChart();
}

/** Shows all anew, with other times. */
function redraw() {
  const chosen = cards.selected;
  show(shown);
  if (chosen !== null) cards.select(chosen);
}

function showChart(card) {
  chart.show(card, rule);
  details.show(card, live ? sessionKey : card.session, live);
}

function hideChart() {
  chart.hide();
  details.hide();
}

/** On a phone, brings the chart to where one looks. */
function toChart() {
  if (PHONE.matches) byId("chart-panel").scrollIntoView();
}

function showSession() {
  if (live) return;
  setView(true);
  query = "";
  cards.say(WAITING);
  show([...session.values()]);
}

function showEarlier(named = "") {
  if ((live || named) && rule) {
    setView(false);
    show([]);
    return earlier.open(named);
  }
  return null;
}

/** Shows the window that the page's address names. */
async function showLinked() {
  const { session: named, ticker } = awaited;
  awaited = null;
  if (named === sessionKey) showSession();
  else await showEarlier(named);
  const card = shown.find((each) => each.ticker === ticker);
  if (card) cards.show(card.key);
}

function setView(toLive) {
  live = toLive;
  byId("show-session").setAttribute("aria-pressed", String(live));
  byId("show-earlier").setAttribute("aria-pressed", String(!live));
  byId("earlier").hidden = live;
}

function tick() {
  const lost = status.tick(feed, problem, rule);
  attention.see(lost, status.mode);
  if (live) cards.tick();
  details.tick();
}

/** Has a link save what is shown at that moment. */
function saves(id, path, keys) {
  const link = byId(id);
  const set = () => {
    const asked = new URLSearchParams(query);
    for (const key of keys() ?? []) asked.append("card", key);
    link.href = `${path}?${asked}`;
  };
  link.addEventListener("pointerdown", set);
  link.addEventListener("click", set);
}

saves("cards-csv", "/csv/cards.csv", () => cards.shown);
saves("alerts-csv", "/csv/alerts.csv", () => null);
saves("chart-csv", "/csv/points.csv", () => [cards.selected]);

const filter = byId("filter");
filter.addEventListener("input", () => cards.filter(filter.value));
byId("cards").addEventListener("click", toChart);
byId("show-session").addEventListener("click", showSession);
byId("show-earlier").addEventListener("click", () => showEarlier());
byId("help-button").addEventListener("click", () => byId("help").showModal());
editTemplate(() => cards.card(cards.selected) && showChart(cards.card(cards.selected)));
addEventListener("hashchange", () => {
  awaited = linked();
  if (awaited && rule) showLinked();
});

const KEYS = {
  j: () => cards.roving.move(1),
  k: () => cards.roving.move(-1),
  t: () => cards.roving.focus(),
  a: () => alerts.roving.focus(),
  f: () => chart.fit(),
  l: () => follow.toggle(),
  d: () => cards.dense.toggle(),
  z: () => local.toggle(),
  s: () => byId("sound").click(),
  n: () => byId("notify").click(),
  c: () => byId("copy").click(),
  "/": () => filter.focus(),
  "?": () => byId("help").showModal(),
  1: showSession,
  2: () => showEarlier(),
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

cards.say("Waiting for the page's server.");
setInterval(tick, TICK_MS);
