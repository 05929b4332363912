// The chart's time axis: the time of day on round seconds, and under it the seconds since the news.

import { byId, element, setClass, setProperty, setText } from "./dom.js";
import { time } from "./format.js";

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300];
// Room for a label, and from the edge to a label's middle.
const ROOM_PX = 74;
const EDGE_PX = 28;

/** The seconds, divisible by a round step, that have room between `begin` and `end`. */
export function ticks(begin, end, width) {
  const most = Math.max(1, Math.floor(width / ROOM_PX));
  const step = STEPS_S.find((each) => (end - begin) / each <= most) ?? STEPS_S.at(-1);
  const found = [];
  for (let at = Math.ceil(begin / step) * step; at <= end; at += step) found.push(at);
  return found;
}

export class TimeAxis {
  #begin = 0;
  #news = null;

  constructor(chart) {
    this.chart = chart;
    this.scale = chart.timeScale();
    this.scale.subscribeVisibleLogicalRangeChange(() => this.#draw());
    new ResizeObserver(() => requestAnimationFrame(() => this.#draw())).observe(byId("chart"));
  }

  /** Takes the time of the axis's first second, 0 without any, and that of the news, if there is any. */
  set(begin, news) {
    this.#begin = begin;
    this.#news = news;
    this.#draw();
  }

  #draw() {
    const range = this.scale.getVisibleLogicalRange();
    const { width } = this.chart.paneSize();
    const labels = [];
    if (range && this.#begin && width) {
      // The library knows places of whole seconds only.
      const [zero, one] = [0, 1].map((place) => this.scale.logicalToCoordinate(place));
      const x = (at) => zero + (at - this.#begin) * (one - zero);
      const [from, to] = [this.#begin + range.from, this.#begin + range.to];
      for (const at of ticks(from, to, width)) labels.push([x(at), "clock", time(at)]);
      if (this.#news !== null) {
        for (const since of ticks(from - this.#news, to - this.#news, width)) {
          labels.push([x(this.#news + since), "since", `${since < 0 ? "−" : "+"}${Math.abs(since)} s`]);
        }
      }
    }
    // None is cut off at an edge.
    this.#show(labels.filter(([x]) => x >= EDGE_PX && x <= width - EDGE_PX));
  }

  /** Shows labels, each a place in pixels, a class and a text, in the elements that are there. */
  #show(labels) {
    const axis = byId("time-axis");
    labels.forEach(([x, name, text], place) => {
      const label = axis.children[place] ?? axis.appendChild(element("span"));
      setClass(label, name);
      setProperty(label, "left", `${x}px`);
      setText(label, text);
    });
    while (axis.children.length > labels.length) axis.lastChild.remove();
  }
}
