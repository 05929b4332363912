// Small helpers for the document. Text from outside goes through textContent only.

export const byId = (id) => document.getElementById(id);

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Sets text only where it differs, so that nothing is painted or read out for nothing. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setClass(node, name) {
  if (node.className !== name) node.className = name;
}

export function setProperty(node, name, value) {
  if (node.style.getPropertyValue(name) !== String(value)) node.style.setProperty(name, value);
}

/** Moves the focus among the items of a list; the list itself is one stop of the Tab key. */
export class Roving {
  constructor(list, onFocus = () => {}) {
    this.list = list;
    this.current = null;
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("focusin", (event) => {
      const item = this.#itemOf(event.target);
      if (item) {
        this.#mark(item);
        onFocus(item);
      }
    });
  }

  /** Makes sure that exactly one item can be reached by the Tab key. */
  settle() {
    if (!this.current?.isConnected || this.current.hidden) {
      const first = this.#items()[0];
      if (first) this.#mark(first);
      else this.current = null;
    }
  }

  focus() {
    this.settle();
    this.current?.focus();
  }

  move(step) {
    const items = this.#items();
    if (!items.length) return;
    const index = items.indexOf(this.current) + step;
    items[Math.min(items.length - 1, Math.max(0, index))].focus();
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -1e9, End: 1e9 };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.move(step);
  }

  #items() {
    return [...this.list.children].filter((item) => !item.hidden);
  }

  #itemOf(target) {
    let node = target;
    while (node && node.parentElement !== this.list) node = node.parentElement;
    return node;
  }

  #mark(item) {
    if (this.current) this.current.tabIndex = -1;
    this.current = item;
    item.tabIndex = 0;
  }
}
