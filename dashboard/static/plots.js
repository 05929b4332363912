// Plots of changes in percent: paths since the alert, and one change against another.

import { direction, percent } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 280;
const FRAME = { left: 58, right: 12, top: 10, bottom: 26 };
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 1e4, 1e5];
const MAX_TICKS = 6;
const MINUTE_TICKS = [0, 5, 10, 15, 20, 25, 30];
// Of the dots, so many of the farthest are drawn at the edge: one leap must not flatten the rest.
const EDGE = 0.01;

/** Draws rows of seconds, number, lower quartile, median and upper quartile. */
export function drawPath(svg, rows) {
  svg.toggleAttribute("hidden", !rows.length);
  if (!rows.length) return;
  const [low, high] = around([0, ...rows.flatMap((row) => [row[2], row[4]])]);
  const plot = new Plot(svg, [0, 30], [low, high]);
  plot.axes(MINUTE_TICKS, (minutes) => `${minutes}`);
  const at = (row, column) => plot.at(row[0] / 60, row[column]);
  plot.add("polygon", {
    class: "between",
    points: [...rows.map((row) => at(row, 4)), ...rows.toReversed().map((row) => at(row, 2))].join(" "),
  });
  plot.add("polyline", { class: "median", points: rows.map((row) => at(row, 3)).join(" ") });
  const last = rows.at(-1);
  svg.setAttribute("aria-label", `Half an hour after the alert: median ${percent(last[3])}, `
    + `quartiles ${percent(last[2])} and ${percent(last[4])}`);
}

/** Draws pairs of changes. */
export function drawScatter(svg, pairs) {
  svg.toggleAttribute("hidden", !pairs.length);
  if (!pairs.length) return;
  const [xs, ys] = [bounds(pairs.map((pair) => pair[0])), bounds([0, ...pairs.map((pair) => pair[1])])];
  const plot = new Plot(svg, xs, ys);
  plot.axes(ticks(xs), percent);
  const inside = (value, [low, high]) => Math.min(high, Math.max(low, value));
  for (const [x, y] of pairs) {
    const [cx, cy] = plot.at(inside(x, xs), inside(y, ys));
    plot.add("circle", { class: direction(y), cx, cy, r: 3 });
  }
  const above = pairs.filter((pair) => pair[1] > 0).length;
  svg.setAttribute("aria-label", `${pairs.length} windows, ${above} of them above zero`);
}

/** Values' bounds, without the farthest of many. */
function bounds(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const left = Math.floor(sorted.length * EDGE);
  return around([sorted[left], sorted.at(-1 - left)]);
}

function around(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = Math.max(0.5, (high - low) * 0.06);
  return [low - margin, high + margin];
}

function ticks([low, high]) {
  const step = STEPS.find((each) => (high - low) / each <= MAX_TICKS) ?? high - low;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}

class Plot {
  constructor(svg, xs, ys) {
    // One unit is a pixel, so that the text has its size on a phone too.
    const width = svg.clientWidth;
    Object.assign(this, { svg, xs, ys, width });
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.replaceChildren();
  }

  at(x, y) {
    const part = (value, [low, high]) => (value - low) / (high - low);
    return [
      FRAME.left + part(x, this.xs) * (this.width - FRAME.left - FRAME.right),
      HEIGHT - FRAME.bottom - part(y, this.ys) * (HEIGHT - FRAME.top - FRAME.bottom),
    ].map((value) => Math.round(value * 10) / 10);
  }

  add(tag, attributes, text = "") {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text;
    this.svg.append(node);
  }

  axes(columns, name) {
    for (const value of ticks(this.ys)) {
      const [x1, y] = this.at(this.xs[0], value);
      this.add("line", { class: value ? "grid" : "zero", x1, x2: this.at(this.xs[1], value)[0], y1: y, y2: y });
      this.add("text", { x: x1 - 6, y: y + 4, "text-anchor": "end" }, percent(value));
    }
    for (const value of columns) {
      const [x] = this.at(value, this.ys[0]);
      this.add("text", { x, y: HEIGHT - 6, "text-anchor": "middle" }, name(value));
    }
  }
}
