/** A vertical line at a place of the time axis, which the chart's library has none of. */
export class VerticalLine {
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
