// Publishes a plan and waits for the end of its experiment, with nothing but a NATS client.
//
//   node publish.mjs [--server nats://127.0.0.1:4222 | --context FILE] [PLAN.json | PLAN.yaml]
//
// A context is a file with an address and credentials, as for the `nats` command; `ems up` prints the path of its own.
// Without a plan file, the program sends the small plan below. Exit codes: 0 if the experiment completed, otherwise 1.
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { connect, DeliverPolicy } from "nats";

const { values: options, positionals: [file] } = parseArgs({
  allowPositionals: true,
  options: {
    server: { type: "string", default: process.env.NATS_URL ?? "nats://127.0.0.1:4222" },
    context: { type: "string" },
  },
});

// A plan as an evolution engine sends it: each genome is a run that overrides one base configuration.
const generation = {
  experiment_name: "generation-from-node",
  base_config: {
    simulation_layer: {
      world_definition: { world_width: 60, world_height: 40 },
      initial_conditions: { initial_food_count: 100, initial_fish_count: 30 },
      agent_defaults: { default_agent_energy: 400 },
      run_control: { max_ticks: 50 },
    },
  },
  runs: [300, 500].map((energy) => ({
    run_id_suffix: `energy-${energy}`,
    params_override: { "simulation_layer.agent_defaults.default_agent_energy": energy },
  })),
  num_replicates_per_run: 2,
  metrics_to_track: ["population"],
};
const plan = file ? readFileSync(file) : new TextEncoder().encode(JSON.stringify(generation));

const { url: servers, user, password: pass } = options.context ? JSON.parse(readFileSync(options.context)) : { url: options.server };
const client = await connect({ servers, user, pass, name: "publish.mjs" });
const stream = client.jetstream();

/** Yields the last document of a subject, and every later one. */
async function* documents(name, subject) {
  const consumer = await stream.consumers.get(name, { filterSubjects: subject, deliver_policy: DeliverPolicy.LastPerSubject });
  const messages = await consumer.consume();
  try {
    for await (const message of messages) yield message.json();
  } finally {
    await messages.close();
  }
}

/** The first document that satisfies the predicate. */
async function firstOf(documents, predicate = () => true) {
  for await (const document of documents) if (predicate(document)) return document;
}

// The ack confirms that the plan is stored, and has its sequence number. The decision's subject ends in that number.
const { seq } = await stream.publish("ems.experiment.submit", plan);
const decision = await firstOf(documents("EMS_STATUS", `ems.experiment.decision.${seq}`));
console.log(JSON.stringify(decision));

let ended;
if (decision.decision !== "rejected") {
  const statuses = documents("EMS_STATUS", `ems.experiment.status.${decision.experiment_id}`);
  ended = await firstOf(statuses, (status) => ["completed", "failed", "cancelled"].includes(status.state));
  console.log(JSON.stringify(ended));
}
await client.close();
process.exitCode = ended?.state === "completed" ? 0 : 1;
