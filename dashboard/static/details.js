// What is said of the chosen ticker above and below its chart.

import { articleOf } from "./alerts.js";
import { cameOut, changeOf, delay, facts, headlineOf, isOpen, lastPoint, ratingClass } from "./card.js";
import { byId, element, setClass, setText } from "./dom.js";
import { count, day, direction, duration, now, percent, price, time, unbroken } from "./format.js";
import { linkTo, outside } from "./links.js";

export class Details {
  #card = null;
  #live = true;

  constructor() {
    byId("copy").addEventListener("click", () => this.#copy());
  }

  /** `session` names the session that the card is of. */
  show(card, session, live) {
    const other = this.#card?.key !== card.key;
    this.#card = card;
    this.#live = live;
    const last = lastPoint(card);
    const change = changeOf(card);
    setText(byId("chart-ticker"), card.ticker);
    setText(byId("chart-price"), last ? price(last[1]) : "");
    setText(byId("chart-change"), change === null ? "" : percent(change));
    setClass(byId("chart-change"), direction(change));
    setText(byId("chart-best"), card.baseline ? `best ${percent(card.best_pct)}` : "");
    setText(byId("chart-rating"), `${card.recommendation} ${card.confidence}`);
    setClass(byId("chart-rating"), ratingClass(card));
    setText(byId("chart-condition"), card.condition);
    setText(byId("chart-headline").firstElementChild, headlineOf(card));
    setText(byId("chart-explanation"), card.explanation);
    setText(byId("chart-facts"), [...facts(card), card.articles ? count(card.articles, "article") : ""].filter(Boolean).join(" · "));
    setText(byId("chart-reason"), unbroken(card.reason));
    setClass(byId("chart-reason"), card.alerts.length ? "alerted" : "");
    this.#others(other);
    this.#links(session);
    this.tick();
  }

  hide() {
    this.#card = null;
  }

  /** What goes on with the time alone. */
  tick() {
    const card = this.#card;
    if (!card) return;
    const open = this.#live && isOpen(card);
    setText(byId("chart-left"), open ? `window open for ${duration(card.closes - now())}` : "");
    setText(byId("chart-news"), card.article ? this.#news(card.article) : "");
  }

  #news(article) {
    const at = cameOut(article);
    const late = delay(article);
    return [
      this.#live ? time(at) : `${day(at)} ${time(at)}`,
      this.#live ? `${duration(now() - at)} ago` : "",
      late ? `here ${late}` : "",
      article.source,
    ].filter(Boolean).join(" · ");
  }

  #others(other) {
    const card = this.#card;
    const alerting = card.alerts.length ? articleOf(card, card.alerts[0]) : null;
    const panel = byId("chart-others");
    panel.hidden = !card.others.length;
    if (other) panel.open = false;
    setText(panel.firstElementChild, `${count(card.articles - 1, "other article")}`);
    panel.lastElementChild.replaceChildren(...card.others.map((article) => {
      const item = element("li");
      const headline = element(article.url ? "a" : "bdi", "", article.headline);
      if (article.url) openElsewhere(headline, article.url);
      const said = [time(cameOut(article)), article.source, article.recommendation, article === alerting ? "alerted" : ""];
      item.append(element("span", "quiet", said.filter(Boolean).join(" · ")), " ", headline);
      return item;
    }));
  }

  #links(session) {
    const card = this.#card;
    const article = byId("chart-link");
    article.hidden = !card.article?.url;
    if (card.article?.url) openElsewhere(article, card.article.url);
    else article.removeAttribute("href");
    const elsewhere = outside(card.ticker);
    byId("chart-outside").href = elsewhere;
    setText(byId("chart-outside"), new URL(elsewhere).hostname.replace(/^www\./, ""));
    byId("chart-self").hidden = !session;
    byId("chart-self").href = session ? linkTo(session, card.ticker) : "";
  }

  async #copy() {
    const said = byId("announcements");
    try {
      await navigator.clipboard.writeText(this.#card.ticker);
      setText(said, `${this.#card.ticker} copied.`);
    } catch {
      setText(said, "The browser does not let this page copy.");
    }
  }
}

function openElsewhere(link, url) {
  link.href = url;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
}
