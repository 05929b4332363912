// The chart of one ticker: prices against the baseline, the alert line, the window's end, volume.

import {
  BaselineSeries, CrosshairMode, HistogramSeries, LineSeries, LineStyle, createChart, createSeriesMarkers,
} from "./lightweight-charts/lightweight-charts.standalone.production.mjs";
import { changeOf, isOpen, lastPoint, ratingClass } from "./cards.js";
import { byId, setClass, setText } from "./dom.js";
import { decimals, direction, duration, now, percent, price, time, unbroken, whole } from "./format.js";

// Beyond the window, how far the time axis goes on with the prices.
const LONGEST_AXIS_S = 600;
const MARGIN_S = 3;

/** A vertical line at a place of the time axis, which the library has none of. */
class VerticalLine {
  #chart = null;
  #at = null;
  #colour = "";
  #redraw = () => {};

  attached({ chart, requestUpdate }) {
    this.#chart = chart;
    this.#redraw = requestUpdate;
  }

  set(at, colour) {
    this.#at = at;
    this.#colour = colour;
    this.#redraw();
  }

  updateAllViews() {}

  paneViews() {
    return [{ zOrder: () => "bottom", renderer: () => ({ draw: (target) => this.#draw(target) }) }];
  }

  #draw(target) {
    const x = this.#at === null ? null : this.#chart.timeScale().logicalToCoordinate(this.#at);
    if (x === null) return;
    target.useBitmapCoordinateSpace(({ context, bitmapSize, horizontalPixelRatio }) => {
      context.strokeStyle = this.#colour;
      context.lineWidth = Math.max(1, Math.floor(horizontalPixelRatio));
      context.setLineDash([4 * horizontalPixelRatio, 4 * horizontalPixelRatio]);
      context.beginPath();
      context.moveTo(Math.round(x * horizontalPixelRatio) + 0.5, 0);
      context.lineTo(Math.round(x * horizontalPixelRatio) + 0.5, bitmapSize.height);
      context.stroke();
    });
  }
}

export class Chart {
  #chart;
  #lines = [];
  #end = new VerticalLine();
  #shown = null;
  #rule = null;
  #length = 0;

  constructor() {
    this.#chart = createChart(byId("chart"), {
      autoSize: true,
      crosshair: { mode: CrosshairMode.Magnet },
      localization: { timeFormatter: time },
      // The page names its maker below the chart; the library's own sign needs a style in the page.
      layout: { attributionLogo: false, fontFamily: "system-ui, sans-serif", panes: { enableResize: false } },
      timeScale: {
        timeVisible: true, secondsVisible: true, tickMarkFormatter: (at) => time(at),
        shiftVisibleRangeOnNewBar: false,
      },
    });
    this.axis = this.#chart.addSeries(LineSeries, { priceScaleId: "", priceLineVisible: false, lastValueVisible: false });
    this.prices = this.#chart.addSeries(BaselineSeries, {
      lineWidth: 2, pointMarkersVisible: true, pointMarkersRadius: 2.5, priceLineVisible: false,
      autoscaleInfoProvider: (original) => this.#withLines(original()),
    });
    this.volume = this.#chart.addSeries(HistogramSeries, { priceFormat: { type: "volume" }, priceLineVisible: false, lastValueVisible: false }, 1);
    this.markers = createSeriesMarkers(this.prices, []);
    this.prices.attachPrimitive(this.#end);
    this.#chart.panes()[1].setStretchFactor(0.25);
    this.#chart.panes()[0].setStretchFactor(1);
    this.#chart.subscribeCrosshairMove((move) => this.#tellPoint(move));
    this.#colour();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#colour();
      if (this.#shown) this.show(this.#shown, this.#rule);
    });
  }

  /** Draws a card's chart; the zoom stays where it is the same card. */
  show(card, rule) {
    const other = this.#shown?.ticker !== card.ticker || this.#shown?.opened !== card.opened
      || !this.#shown.points.length;
    this.#shown = card;
    this.#rule = rule;
    byId("chart-panel").hidden = false;
    this.#tell();
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
    this.volume.setData(points.map(([at, value, volume], i) => ({
      time: at, value: volume, color: value >= (points[i - 1]?.[1] ?? value) ? `${up}80` : `${down}80`,
    })));
    for (const line of this.#lines.splice(0)) this.prices.removePriceLine(line);
    if (card.baseline) {
      this.#line(card.baseline, muted, "baseline");
      this.#line(this.#goal(card), accent, `+${rule.change_pct} %`);
    }
    const times = new Set(points.map((point) => point[0]));
    this.markers.setMarkers(
      card.alerts.filter((alert) => times.has(alert[0])).map((alert) => ({
        time: alert[0], position: "aboveBar", shape: "arrowDown", color: accent, text: String(alert[1]),
      })),
    );
    this.#end.set(points.length ? MARGIN_S + rule.window_s : null, muted);
    const highest = points.length ? Math.max(...points.map((point) => point[1])) : 0;
    byId("chart").setAttribute("aria-label", points.length
      ? `Prices of ${card.ticker}: ${card.points.length}, last ${price(points.at(-1)[1])}, highest ${price(highest)} dollars`
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

  /** Counts the window down. */
  tick(live) {
    const card = this.#shown;
    if (!card) return;
    const open = live && isOpen(card);
    const left = open ? `window open for ${duration(card.closes - now())}` : "";
    setText(byId("chart-left"), left);
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

  #tell() {
    const card = this.#shown;
    const last = lastPoint(card);
    const change = changeOf(card);
    setText(byId("chart-ticker"), card.ticker);
    setText(byId("chart-price"), last ? price(last[1]) : "");
    setText(byId("chart-change"), change === null ? "" : percent(change));
    setClass(byId("chart-change"), direction(change));
    setText(byId("chart-rating"), `${card.recommendation} ${card.confidence}`);
    setClass(byId("chart-rating"), ratingClass(card));
    setText(byId("chart-headline").firstElementChild, card.headline || "No news");
    setText(byId("chart-reason"), unbroken(card.reason));
    setClass(byId("chart-reason"), card.alerts.length ? "alerted" : "");
    const link = byId("chart-link");
    link.hidden = !card.url;
    if (card.url) link.href = card.url;
    else link.removeAttribute("href");
    this.#tellPoint({});
  }

  #tellPoint({ time: at }) {
    const points = this.#shown?.points ?? [];
    const point = points.findLast((p) => p[0] === at) ?? points.at(-1);
    setText(byId("chart-legend"), point
      ? `${time(point[0])}  ${price(point[1])}  ${this.#shown.baseline ? percent(point[3]) : ""}  volume ${whole(point[2])}`
      : "No prices yet");
  }

  #colour() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colours = { up: colour("up"), down: colour("down"), muted: colour("muted"), accent: colour("accent") };
    const { up, down } = this.colours;
    this.#chart.applyOptions({
      layout: { background: { color: colour("panel") }, textColor: colour("muted"), panes: { separatorColor: colour("line") } },
      grid: { vertLines: { color: colour("line") }, horzLines: { color: colour("line") } },
      rightPriceScale: { borderColor: colour("line") },
      timeScale: { borderColor: colour("line") },
    });
    this.prices.applyOptions({
      topLineColor: up, topFillColor1: `${up}40`, topFillColor2: `${up}08`,
      bottomLineColor: down, bottomFillColor1: `${down}08`, bottomFillColor2: `${down}40`,
    });
  }
}
