// What a viewer chose, remembered by this browser.

const PREFIX = "newshead.";

/** Returns what was chosen under a name; `otherwise` where nothing was, or nothing is kept. */
export function chosen(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // A browser that keeps nothing still shows the page.
  }
}

const isOn = (button) => button.getAttribute("aria-pressed") === "true";

/** Makes a button a switch that is remembered; `onSet` hears of each state, the first one too. */
export class Switch {
  constructor(button, name, otherwise, onSet = () => {}) {
    this.button = button;
    this.name = name;
    this.onSet = onSet;
    button.addEventListener("click", () => this.toggle());
    this.#set(chosen(name, otherwise) === true);
  }

  get on() {
    return isOn(this.button);
  }

  toggle() {
    this.#set(!this.on);
    remember(this.name, this.on);
  }

  #set(on) {
    this.button.setAttribute("aria-pressed", String(on));
    this.onSet(on);
  }
}
