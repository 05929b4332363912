// The stream of updates from the page's server.

// The server sends one a second.
const LOST_AFTER_MS = 4000;

/** Hands each update to `onUpdate`; the browser itself connects again when the stream breaks. */
export class Feed {
  #heardAt = performance.now();

  constructor(onUpdate) {
    this.onUpdate = onUpdate;
    this.#connect();
  }

  get lost() {
    return performance.now() - this.#heardAt > LOST_AFTER_MS;
  }

  #connect() {
    const source = new EventSource("/feed");
    source.onmessage = (event) => {
      this.#heardAt = performance.now();
      this.onUpdate(JSON.parse(event.data));
    };
    source.onerror = () => {
      // A refusal (the server is full, or wants the password again) ends it for good.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.#connect(), 2000);
    };
  }
}
