// A light per part of newshead, with its age, and what was mended within the last hour.

import { byId, element, setClass, setText } from "./dom.js";
import { duration, now, time } from "./format.js";

const HEALTH = { ok: "good", degraded: "warn", lost: "bad", refused: "bad", off: "off" };
const MENDED_SHOWN = 3;

export class Parts {
  #parts = [];
  #lights = new Map();

  /** `parts` are [name, state, reason, since, last success], `mended` [name, reason, since, until]. */
  show(parts, mended) {
    this.#parts = parts;
    const names = new Set(parts.map(([name]) => name));
    for (const [name, light] of this.#lights) {
      if (names.has(name)) continue;
      light.remove();
      this.#lights.delete(name);
    }
    for (const [name, state, reason] of parts) {
      const light = this.#lights.get(name) ?? this.#add(name);
      light.dataset.health = HEALTH[state] ?? "bad";
      light.title = reason ? `${state}: ${reason}` : state;
      setText(light.querySelector(".unseen"), state === "ok" ? "ok" : light.title);
    }
    const said = mended.slice(0, MENDED_SHOWN).map(
      ([name, , since, until]) => `${name} ${duration(until - since)} until ${time(until)}`);
    byId("recent").hidden = !said.length;
    byId("recent").title = mended.map(([name, reason]) => `${name}: ${reason}`).join("\n");
    setText(byId("recent"), `recent: ${said.join(", ")}`);
  }

  /** What goes on with the time alone. */
  tick() {
    for (const [name, state, , since, success] of this.#parts) {
      const from = state === "ok" ? success : since;
      const age = state === "off" || from === null ? "" : duration(now() - from);
      setText(this.#lights.get(name).querySelector("span"), age);
    }
  }

  #add(name) {
    const light = element("li");
    const dot = element("i");
    dot.setAttribute("aria-hidden", "true");
    light.append(dot, name, element("span"), element("b", "unseen"));
    byId("parts").append(light);
    this.#lights.set(name, light);
    return light;
  }
}

/** The banner over everything else; a doubt is shown more quietly than a loss. */
export function showBanner(lost, doubt) {
  const banner = byId("banner");
  banner.hidden = !lost && !doubt;
  setClass(banner, lost ? "" : "doubt");
  document.body.classList.toggle("blind", Boolean(lost));
  setText(banner, lost || doubt);
}
