// The stream of updates from the page's server.

// The server sends one every 2 s, and after 3 more one that says the database does not answer.
const LOST_AFTER_MS = 7000;

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
