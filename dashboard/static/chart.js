// The chart of one ticker: prices against the baseline, the alert line, the window's end, trades' sizes.

import {
  BaselineSeries, CrosshairMode, HistogramSeries, LineSeries, LineStyle, createChart, createSeriesMarkers,
} from "./lightweight-charts/lightweight-charts.standalone.production.mjs";
import { cameOut } from "./card.js";
import { byId, setText } from "./dom.js";
import { decimals, percent, price, time, whole } from "./format.js";
import { TimeAxis } from "./time_axis.js";
import { VerticalLine } from "./vertical_line.js";

// Beyond the window, how far the time axis goes on with the prices.
const LONGEST_AXIS_S = 600;
const MARGIN_S = 3;

export class Chart {
  #chart;
  #lines = [];
  #end = new VerticalLine();
  #shown = null;
  #rule = null;
  #length = 0;
  #times;

  constructor() {
    this.#chart = createChart(byId("chart"), {
      autoSize: true,
      crosshair: { mode: CrosshairMode.Magnet },
      localization: { timeFormatter: time },
      // The page names its maker below the chart; the library's own sign needs a style in the page.
      layout: { attributionLogo: false, fontFamily: "system-ui, sans-serif", panes: { enableResize: false } },
      // The time axis is the page's own.
      timeScale: { visible: false, shiftVisibleRangeOnNewBar: false },
    });
    this.axis = this.#chart.addSeries(LineSeries, { priceScaleId: "", priceLineVisible: false, lastValueVisible: false });
    this.prices = this.#chart.addSeries(BaselineSeries, {
      lineWidth: 2, pointMarkersVisible: true, pointMarkersRadius: 2.5, priceLineVisible: false,
      autoscaleInfoProvider: (original) => this.#withLines(original()),
    });
    this.sizes = this.#chart.addSeries(HistogramSeries, { priceFormat: { type: "volume" }, priceLineVisible: false, lastValueVisible: false }, 1);
    this.markers = createSeriesMarkers(this.prices, []);
    this.prices.attachPrimitive(this.#end);
    this.#chart.panes()[1].setStretchFactor(0.25);
    this.#chart.panes()[0].setStretchFactor(1);
    this.#chart.subscribeCrosshairMove((move) => this.#tellPoint(move));
    this.#times = new TimeAxis(this.#chart);
    this.#colour();
  }

  /** Takes the colours of another theme, or times of another zone. */
  redraw() {
    this.#colour();
    if (this.#shown) this.show(this.#shown, this.#rule);
  }

  /** Draws a card's chart; the zoom stays where it is the same card. */
  show(card, rule) {
    const other = this.#shown?.key !== card.key || !this.#shown.points.length;
    this.#shown = card;
    this.#rule = rule;
    byId("chart-panel").hidden = false;
    this.#tellPoint({});
    // The library wants each time once: of two prices of a second the later counts.
    const points = [...new Map(card.points.map((point) => [point[0], point])).values()];
    const precision = decimals(points.at(-1)?.[1] ?? 1);
    this.prices.applyOptions({
      baseValue: { type: "price", price: card.baseline || (points[0]?.[1] ?? 0) },
      priceFormat: { type: "price", precision, minMove: 10 ** -precision },
    });
    this.#length = this.#setAxis(points);
    this.prices.setData(points.map(([at, value]) => ({ time: at, value })));
    const { up, down, muted, accent } = this.colours;
    this.sizes.setData(points.map(([at, value, size], i) => ({
      time: at, value: size, color: value >= (points[i - 1]?.[1] ?? value) ? `${up}80` : `${down}80`,
    })));
    for (const line of this.#lines.splice(0)) this.prices.removePriceLine(line);
    if (card.baseline) {
      this.#line(card.baseline, muted, "baseline");
      this.#line(this.#goal(card), accent, `+${rule.change_pct} %`);
    }
    this.markers.setMarkers(marks(card, points, accent, muted));
    this.#end.set(points.length ? MARGIN_S + rule.window_s : null, muted);
    this.#times.set(points.length ? points[0][0] - MARGIN_S : 0, card.article ? cameOut(card.article) : null);
    const highest = points.length ? Math.max(...points.map((point) => point[1])) : 0;
    byId("chart").setAttribute("aria-label", points.length
      ? `Prices of ${card.ticker}: ${card.points.length}, last ${price(points.at(-1)[1])}, highest ${price(highest)} dollars${firstAlert(card)}`
      : `No prices of ${card.ticker} yet`);
    // The panel may have been hidden until now, and has its size from the next frame on.
    if (other) requestAnimationFrame(() => this.fit());
  }

  /** The whole window, also what is still to come of it. */
  fit() {
    if (this.#length) this.#chart.timeScale().setVisibleLogicalRange({ from: -0.5, to: this.#length - 0.5 });
  }

  hide() {
    this.#shown = null;
    byId("chart-panel").hidden = true;
  }

  #goal(card) {
    return card.baseline * (1 + this.#rule.change_pct / 100);
  }

  #line(at, color, title) {
    this.#lines.push(this.prices.createPriceLine({
      price: at, color, title, lineWidth: 1, lineStyle: LineStyle.Dashed, axisLabelVisible: true,
    }));
  }

  /** The price axis shows the baseline and the alert line too. */
  #withLines(info) {
    const card = this.#shown;
    if (!info?.priceRange || !card?.baseline) return info;
    const { minValue, maxValue } = info.priceRange;
    const priceRange = { minValue: Math.min(minValue, card.baseline), maxValue: Math.max(maxValue, this.#goal(card)) };
    return { ...info, priceRange };
  }

  /** A time axis in proportion: the library spaces points evenly, whatever time lies between. */
  #setAxis(points) {
    if (!points.length) {
      this.axis.setData([]);
      return 0;
    }
    const begin = points[0][0];
    const end = Math.max(this.#rule.window_s, Math.min(LONGEST_AXIS_S, points.at(-1)[0] - begin));
    const seconds = Array.from({ length: end + 2 * MARGIN_S + 1 }, (_, i) => ({ time: begin - MARGIN_S + i }));
    this.axis.setData(seconds);
    return seconds.length;
  }

  #tellPoint({ time: at }) {
    const points = this.#shown?.points ?? [];
    const point = points.findLast((p) => p[0] === at) ?? points.at(-1);
    setText(byId("chart-legend"), point
      ? `${time(point[0])}  ${price(point[1])}  ${this.#shown.baseline ? percent(point[3]) : ""}  newest trade ${whole(point[2])} shares`
      : "No prices yet");
  }

  #colour() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colours = { up: colour("up"), down: colour("down"), muted: colour("muted"), accent: colour("accent") };
    const { up, down } = this.colours;
    this.#chart.applyOptions({
      layout: { background: { color: colour("panel") }, textColor: colour("muted"), panes: { separatorColor: colour("line") } },
      grid: { vertLines: { visible: false }, horzLines: { color: colour("line") } },
      rightPriceScale: { borderColor: colour("line") },
    });
    this.prices.applyOptions({
      topLineColor: up, topFillColor1: `${up}40`, topFillColor2: `${up}08`,
      bottomLineColor: down, bottomFillColor1: `${down}08`, bottomFillColor2: `${down}40`,
    });
  }
}

/** The first alert is marked by its priority, each of the others by a dot. */
function marks(card, points, accent, muted) {
  const times = new Set(points.map((point) => point[0]));
  return card.alerts.map((alert, i) => ({ alert, i })).filter(({ alert }) => times.has(alert[0])).map(({ alert, i }) => (i
    ? { time: alert[0], position: "belowBar", shape: "circle", color: muted, size: 0.4 }
    : { time: alert[0], position: "aboveBar", shape: "arrowDown", color: accent, size: 1.6, text: "first alert" }));
}

function firstAlert(card) {
  const first = card.alerts[0];
  return first ? `, first alert ${price(first[2])} at ${time(first[0])}` : "";
}
