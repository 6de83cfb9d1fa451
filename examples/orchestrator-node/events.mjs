// Publishes the events of the runs until the broker has each of them. The journal records which ones it has.
import { connect } from "nats";

const KINDS = ["sim.run_started", "sim.run_completed", "sim.run_failed", "sim.run_metrics"];
const DAYS_30 = 30 * 24 * 3600 * 1e9;

export class Events {
  #wakeup = deferred();

  constructor(server, protos, journal) {
    this.server = server;
    this.protos = protos;
    this.journal = journal;
  }

  /** Announces that there may be an event to publish. */
  wake() {
    this.#wakeup.resolve();
  }

  /** Publishes events until the process ends. */
  async publish() {
    const client = await connect({
      servers: this.server, name: "orchestrator-node",
      waitOnFirstConnect: true, maxReconnectAttempts: -1, reconnectTimeWait: 250,
    });
    for (;;) {
      this.#wakeup = deferred();
      try {
        await this.#publishAll(client);
        await this.#wakeup.promise;
      } catch (problem) {
        console.error(`not published yet: ${problem.message}`);
        await new Promise((done) => setTimeout(done, 250));
      }
    }
  }

  async #publishAll(client) {
    const manager = await client.jetstreamManager({ checkAPI: false });
    await ensureStream(manager);
    for (const [simulation_id, run] of this.journal.runs) {
      const kinds = [];
      if (run.started_ms) kinds.push("started");
      if (run.end) kinds.push(run.end.state.toLowerCase());
      for (const kind of kinds.filter((kind) => !run.published.has(kind))) {
        const { message, id } = this.#message(simulation_id, run, kind);
        const options = { timeout: 2000, msgID: id };
        await client.jetstream().publish(`sim.run_${kind}`, message, options);
        this.journal.markPublished(simulation_id, kind);
      }
    }
  }

  /** The bytes of an event and its id; both are the same each time it is published. */
  #message(simulation_id, run, kind) {
    const id = `${simulation_id}:${kind}`;
    const started_at = run.started_ms && timestamp(run.started_ms);
    const finished_at = run.end && timestamp(run.end.finished_ms);
    const payloads = {
      started: ["RunStarted", { simulation_id, started_at }],
      completed: ["RunCompleted", { simulation_id, metrics: run.end?.metrics, started_at, finished_at }],
      failed: ["RunFailed", {
        simulation_id, error_kind: `ERROR_KIND_${run.end?.error_kind?.toUpperCase()}`, message: run.end?.message,
        started_at, finished_at,
      }],
    };
    const [name, payload] = payloads[kind];
    const happened = kind === "started" ? run.started_ms : run.end.finished_ms;
    const message = this.protos["fes.common.events.GenericEventRequest"].serialize({
      event_id: id,
      event_type_key: `sim.run_${kind}.v1`,
      event_payload: this.protos[`fes.simulation.events.v1.${name}`].serialize(payload),
      timestamp_ns: `${happened}000000`,
      source_worker_id: "orchestrator-node",
      simulation_id,
      payload_content_type: "application/x-protobuf",
    });
    return { message, id };
  }
}

/** Creates the stream if it is missing, with the configuration that the worker uses too. */
async function ensureStream(manager) {
  try {
    await manager.streams.find(KINDS[0]);
  } catch (problem) {
    if (problem.message !== "no stream matches subject") throw problem;
    await manager.streams.add({
      name: "SIM_EVENTS", subjects: KINDS.flatMap((kind) => [kind, `${kind}.>`]),
      storage: "file", retention: "limits", max_age: DAYS_30,
    });
  }
}

function timestamp(milliseconds) {
  return { seconds: Math.floor(milliseconds / 1000), nanos: (milliseconds % 1000) * 1e6 };
}

function deferred() {
  let resolve;
  const promise = new Promise((done) => (resolve = done));
  return { promise, resolve };
}
