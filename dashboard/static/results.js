// The view Results: what prices did after the alerts of some days.

import { byId, element } from "./dom.js";
import { day, direction, percent, price, setLocal, time, whole, zone } from "./format.js";
import { drawPath, drawScatter } from "./plots.js";
import { chosen } from "./prefs.js";
import { followTheme } from "./theme.js";

const TITLES = { alerted: "Windows that alerted", "not alerted": "Windows without an alert" };
const COLUMNS = ["", "n", "median", "above zero", "mean", "spread"];

let asked = 0;

for (const id of ["since", "until"]) byId(id).addEventListener("change", ask);

async function ask() {
  const query = new URLSearchParams();
  for (const id of ["since", "until"]) if (byId(id).value) query.set(id, byId(id).value);
  const question = ++asked;
  say("Reading …");
  const figures = await read(`/results/figures?${query}`);
  // An answer that comes after the next question is no answer to it.
  if (figures && question === asked) show(figures);
}

async function read(address) {
  try {
    const answer = await fetch(address);
    if (answer.ok) return await answer.json();
    say(await answer.text());
  } catch {
    say("The page's server does not answer.");
  }
  return null;
}

function say(text) {
  byId("said").textContent = text;
  byId("found").hidden = true;
}

function show(figures) {
  [byId("since").value, byId("until").value] = figures.days;
  const [since, until] = figures.days;
  for (const name of ["groups", "paths", "windows"]) {
    byId(`${name}-csv`).href = `/results/${name}.csv?${new URLSearchParams({ since, until })}`;
  }
  say(figures.summary || "No window of these days is stored.");
  byId("found").hidden = !figures.summary;
  if (!figures.summary) return;
  showPlots(figures);
  byId("groups").replaceChildren(...Object.keys(TITLES).flatMap((group) => tableOf(figures, group)));
  const { alerts, listed } = figures;
  byId("best").replaceChildren(...alerts.slice(0, listed).map(itemOf));
  byId("worst").replaceChildren(...alerts.slice(listed).slice(-listed).reverse().map(itemOf));
  byId("method").replaceChildren(...figures.method.map((sentence) => element("li", "", sentence)));
}

function showPlots({ path, alerts, main }) {
  byId("path-note").textContent = path.length
    ? `Median and quartiles of ${whole(path[0][1])} windows that alerted and were followed up, by minutes.`
    : "Nothing is known beyond the windows' ends: with FOLLOW_UP=true newshead asks IBKR for it.";
  drawPath(byId("path"), path);
  byId("scatter-title").textContent = `Change ${main === "window's end" ? "at the window's end" : main}`;
  byId("scatter-note").textContent = "By the change from the baseline at the alert, a dot for each window.";
  drawScatter(byId("scatter"), alerts.map(({ rise, change }) => [rise, change]));
}

function tableOf({ groups, main, too_few: tooFew }, group) {
  const inside = groups.filter((line) => line.group === group);
  if (!inside.length) return [];
  const table = element("table");
  const head = element("thead");
  head.append(rowOf(COLUMNS.map((name) => element(name ? "th" : "td", "", name))));
  table.append(head);
  for (const grouping of new Set(inside.map((line) => line.grouping))) {
    const body = element("tbody");
    if (grouping !== "all") {
      const title = element("th", "", `By ${grouping}, ${main}`);
      title.colSpan = COLUMNS.length;
      body.append(rowOf([title]));
    }
    body.append(...inside.filter((line) => line.grouping === grouping).map((line) => lineOf(line, tooFew)));
    table.append(body);
  }
  const frame = element("div", "table");
  frame.append(table);
  // Where it is wider than the screen, keys scroll it.
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", TITLES[group]);
  return [element("h2", "", TITLES[group]), frame];
}

function lineOf(line, tooFew) {
  const name = element("th", "", line.grouping === "all" ? line.measure : line.value);
  name.scope = "row";
  const size = element("td", "", whole(line.size));
  if (!line.enough) {
    const few = element("td", "few", tooFew);
    few.colSpan = COLUMNS.length - 2;
    return rowOf([name, size, few]);
  }
  const share = (value) => `${Math.round(value * 100)} %`;
  return rowOf([
    name,
    size,
    figure(line.median, line.median_interval, percent, direction(line.median)),
    figure(line.above_zero, line.above_zero_interval, share),
    figure(line.mean, line.mean_interval, percent, direction(line.mean)),
    element("td", "", line.spread.toFixed(1)),
  ]);
}

function figure(value, interval, write, className = "") {
  const cell = element("td");
  cell.append(element("span", className, write(value)), " ");
  cell.append(element("small", "", `(${interval.map(write).join(" to ")})`));
  return cell;
}

function rowOf(cells) {
  const row = element("tr");
  row.append(...cells);
  return row;
}

function itemOf(alert) {
  const item = element("li");
  const name = element(alert.link ? "a" : "span", "ticker", alert.ticker);
  if (alert.link) name.href = alert.link;
  item.append(
    name,
    element("span", "quiet", `${day(alert.at)} ${time(alert.at)}`),
    element("span", "", price(alert.price)),
    element("span", direction(alert.change), percent(alert.change)),
  );
  return item;
}

followTheme(() => {});
setLocal(chosen("local", false) === true);
byId("times").textContent = `Times: ${zone()}`;
ask();
