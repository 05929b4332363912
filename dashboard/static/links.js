// Links: to a window of a session, and to what others show of a ticker.

import { byId } from "./dom.js";
import { chosen, remember } from "./prefs.js";

const DEFAULT_TEMPLATE = "https://www.tradingview.com/chart/?symbol={ticker}";

/** The link to a ticker's window in a session. */
export function linkTo(session, ticker) {
  return `#${session}/${encodeURIComponent(ticker)}`;
}

/** The session and the ticker that the page's address names; null where it names none. */
export function linked() {
  const [, session, ticker] = /^#(\d{8}T\d{6}Z)\/(.+)$/.exec(location.hash) ?? [];
  try {
    return session ? { session, ticker: decodeURIComponent(ticker) } : null;
  } catch {
    return null;
  }
}

/** The address at which another site shows a ticker, as the viewer wants it. */
export function outside(ticker) {
  // Others write share classes with a dot.
  return template().replace("{ticker}", encodeURIComponent(ticker.replace(" ", ".")));
}

function template() {
  const text = chosen("link", DEFAULT_TEMPLATE);
  return fits(text) ? text : DEFAULT_TEMPLATE;
}

const fits = (text) => /^https?:\/\//.test(text) && URL.canParse(text) && text.includes("{ticker}");

/** Lets the viewer change the template; `onChange` is called where it is another one. */
export function editTemplate(onChange) {
  const field = byId("link-template");
  field.value = template();
  field.addEventListener("change", () => {
    remember("link", fits(field.value.trim()) ? field.value.trim() : DEFAULT_TEMPLATE);
    field.value = template();
    onChange();
  });
}
