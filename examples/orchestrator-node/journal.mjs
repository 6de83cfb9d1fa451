// The orchestrator's persistent state: one line of JSON per change, on disk before anyone can observe the change.
import { existsSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";

export class Journal {
  /** simulation_id -> { config_sha, seed, config, started_ms, end, published: kinds of events that the broker has } */
  runs = new Map();

  constructor(path) {
    const lines = existsSync(path) ? readFileSync(path, "utf8").split("\n") : [];
    // A crash may have cut the last line short; its change was never published.
    const whole = lines.slice(0, -1);
    for (const line of whole) this.#apply(JSON.parse(line));
    this.file = openSync(path, "a");
    if (lines.at(-1)) writeSync(this.file, "\n");
  }

  accept({ simulation_id, ...run }) {
    this.#write({ simulation_id, run });
  }

  begin(simulation_id, started_ms) {
    this.#write({ simulation_id, started_ms });
  }

  /** Records that a run waits in the queue again. */
  requeue(simulation_id) {
    this.#write({ simulation_id, started_ms: 0 });
  }

  end(simulation_id, end) {
    this.#write({ simulation_id, end });
  }

  /** Records that the broker has this event. */
  markPublished(simulation_id, kind) {
    this.#write({ simulation_id, kind });
  }

  #write(change) {
    writeSync(this.file, `${JSON.stringify(change)}\n`);
    fsyncSync(this.file);
    this.#apply(change);
  }

  #apply({ simulation_id, run, started_ms, end, kind }) {
    if (run) this.runs.set(simulation_id, { ...run, published: new Set() });
    const known = this.runs.get(simulation_id);
    if (started_ms !== undefined) known.started_ms = started_ms;
    if (end) {
      known.end = end;
      delete known.config; // no longer needed
    }
    if (kind) known.published.add(kind);
  }
}
