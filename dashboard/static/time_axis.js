// The chart's time axis: the time of day on round seconds, and under it the seconds since the news.

import { byId, element } from "./dom.js";
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
      for (const at of ticks(from, to, width)) labels.push(this.#label(x(at), width, time(at), "clock"));
      if (this.#news !== null) {
        for (const since of ticks(from - this.#news, to - this.#news, width)) {
          labels.push(this.#label(x(this.#news + since), width, `${since < 0 ? "−" : "+"}${Math.abs(since)} s`, "since"));
        }
      }
    }
    byId("time-axis").replaceChildren(...labels.filter(Boolean));
  }

  #label(x, width, text, name) {
    // None is cut off at an edge.
    if (x < EDGE_PX || x > width - EDGE_PX) return null;
    const label = element("span", name, text);
    label.style.left = `${x}px`;
    return label;
  }
}
