// A small orchestrator that runs any command as the simulation, and meets the requirements of docs/orchestrator.md.
//
//   node orchestrator.mjs --listen 127.0.0.1:50051 --server nats://127.0.0.1:4222 --data-dir D --simulator 'sh sim.sh'
//
// With --only-start it implements only StartSimulation. journal.mjs stores its state; events.mjs publishes its events.
import { spawn } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { Events } from "./events.mjs";
import { Journal } from "./journal.mjs";

const { values: options } = parseArgs({
  options: {
    listen: { type: "string", default: "127.0.0.1:50051" },
    server: { type: "string", default: "nats://127.0.0.1:4222" },
    "data-dir": { type: "string", default: "orchestrator-data" },
    simulator: { type: "string" },
    slots: { type: "string", default: "4" },
    "only-start": { type: "boolean", default: false },
  },
});
if (!options.simulator) {
  console.error("error: --simulator is missing: the shell command that runs a simulation");
  process.exit(2);
}
const directory = resolve(options["data-dir"]);
const slots = Number(options.slots);
mkdirSync(directory, { recursive: true });

const protos = loader.loadSync(
  ["orchestrator/v1/orchestrator", "common/events/generic_event_request", "simulation/events/v1/run_events"].map(
    (name) => `fes/${name}.proto`,
  ),
  {
    includeDirs: [fileURLToPath(new URL("../../protos", import.meta.url))],
    keepCase: true, enums: String, longs: String, defaults: true,
  },
);

const journal = new Journal(join(directory, "journal.jsonl"));
const events = new Events(options.server, protos, journal);
const queue = [];
const live = new Map(); // simulation_id -> its process
const watchers = new Set();

/** Handles a start command. Nothing awaits before the journal's line is written, so two calls can't race. */
function start(command) {
  const { simulation_id, config_sha } = command;
  const rejected = (status_code, message) => ({ simulation_id, outcome: "START_OUTCOME_REJECTED", status_code, message });
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$/.test(simulation_id)) {
    return rejected(grpc.status.INVALID_ARGUMENT, "simulation_id must be one path segment");
  }
  const known = journal.runs.get(simulation_id);
  if (known && known.config_sha !== config_sha) {
    return rejected(grpc.status.FAILED_PRECONDITION, "known with another config_sha");
  }
  if (known) return { simulation_id, outcome: "START_OUTCOME_ALREADY_EXISTS" };
  journal.accept({ simulation_id, config_sha, seed: command.rng_seed, config: command.config.toString("base64") });
  queue.push(simulation_id);
  fill();
  return { simulation_id, outcome: "START_OUTCOME_ACCEPTED" };
}

/** Starts queued runs in free slots. */
function fill() {
  while (queue.length && live.size < slots) run(queue.shift());
  for (const watcher of watchers) watcher.write(capacity());
}

function run(simulation_id) {
  const { config, seed } = journal.runs.get(simulation_id);
  const workspace = join(directory, simulation_id);
  rmSync(workspace, { recursive: true, force: true }); // each start gets an empty directory
  mkdirSync(workspace, { recursive: true });
  writeFileSync(join(workspace, "config.yaml"), Buffer.from(config, "base64"));
  // Its own process group, so that STOP reaches every process that the simulation starts.
  const child = spawn("sh", ["-c", options.simulator], {
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      SIMULATION_ID: simulation_id, SIMULATION_SEED: seed,
      SIMULATION_CONFIG: join(workspace, "config.yaml"), SIMULATION_OUTPUT_DIR: workspace,
    },
  });
  live.set(simulation_id, child);
  journal.begin(simulation_id, Date.now());
  events.wake();
  let stdout = "", stderr = "";
  child.stdout.on("data", (data) => (stdout = (stdout + data).slice(-65536)));
  child.stderr.on("data", (data) => (stderr = (stderr + data).slice(-2000)));
  child.on("close", (code) => {
    live.delete(simulation_id);
    end(simulation_id, child.stopped ? failed("stopped", "stopped by STOP") : outcome(code, stdout, stderr));
    fill();
  });
}

function end(simulation_id, result) {
  journal.end(simulation_id, { ...result, finished_ms: Date.now() });
  events.wake();
}

function failed(error_kind, message) {
  return { state: "FAILED", error_kind, message };
}

function outcome(code, stdout, stderr) {
  if (code === null || code > 125) return failed("infrastructure", `killed, or not executable; ${stderr.trim()}`);
  if (code === 65) return failed("infeasible", stderr.trim() || "no meaningful run");
  if (code !== 0) return failed("simulation", stderr.trim() || `exit code ${code}`);
  for (const line of stdout.trimEnd().split("\n").reverse()) {
    try {
      const result = JSON.parse(line);
      if (result?.metrics) return { state: "COMPLETED", metrics: result.metrics };
    } catch {
      // The line is output of the simulation, not its result.
    }
  }
  return { state: "COMPLETED", metrics: {} };
}

async function stop(simulation_id) {
  const child = live.get(simulation_id);
  const waiting = queue.indexOf(simulation_id);
  if (waiting >= 0) {
    queue.splice(waiting, 1);
    end(simulation_id, failed("stopped", "stopped by STOP"));
  } else if (child) {
    child.stopped = true;
    const gone = new Promise((done) => child.on("close", done));
    const kill = (signal) => live.has(simulation_id) && process.kill(-child.pid, signal);
    kill("SIGTERM");
    const late = setTimeout(kill, 3000, "SIGKILL");
    await gone;
    clearTimeout(late);
  }
}

function state(simulation_id) {
  const run = journal.runs.get(simulation_id);
  const known = !run ? "NOT_FOUND" : run.end ? run.end.state : run.started_ms ? "RUNNING" : "QUEUED";
  return `SIMULATION_STATE_${known}`;
}

function status(simulation_id) {
  const run = journal.runs.get(simulation_id);
  const { metrics, error_kind, message } = run?.end ?? {};
  return { simulation_id, state: state(simulation_id), metrics, error_kind, message, config_sha: run?.config_sha };
}

function capacity() {
  return { slots, in_use: live.size, queued: queue.length, max_message_bytes: 4 * 1024 * 1024 };
}

const required = {
  StartSimulation(call, reply) {
    const response = start(call.request);
    const refused = response.outcome === "START_OUTCOME_REJECTED";
    reply(refused ? { code: response.status_code, details: response.message } : null, response);
  },
};
const optional = {
  StartSimulations(call, reply) {
    reply(null, { responses: call.request.commands.map(start) });
  },
  async ControlSimulation(call, reply) {
    const { simulation_id, action } = call.request;
    if (action !== "CONTROL_ACTION_STOP") return reply({ code: grpc.status.UNIMPLEMENTED, details: "only STOP" });
    if (!journal.runs.has(simulation_id)) return reply({ code: grpc.status.NOT_FOUND, details: "no such run" });
    await stop(simulation_id);
    reply(null, { simulation_id, state: state(simulation_id) });
  },
  GetSimulationStatus(call, reply) {
    reply(null, { statuses: call.request.simulation_ids.map(status) });
  },
  WatchCapacity(call) {
    watchers.add(call);
    call.on("cancelled", () => watchers.delete(call));
    call.write(capacity());
  },
};

// Runs of an earlier process: running ones have ended or can't be followed any more; queued ones wait again.
for (const [simulation_id, run] of journal.runs) {
  if (run.end) continue;
  if (run.started_ms) end(simulation_id, failed("infrastructure", "the orchestrator was restarted while this ran"));
  else queue.push(simulation_id);
}
const server = new grpc.Server();
const calls = options["only-start"] ? required : { ...required, ...optional };
server.addService(protos["fes.orchestrator.v1.OrchestratorClientService"], calls);
server.bindAsync(options.listen, grpc.ServerCredentials.createInsecure(), (problem) => {
  if (problem) {
    console.error(`error: ${problem.message}`);
    process.exit(1);
  }
  console.log(`serving on ${options.listen}`);
  fill();
});
process.on("SIGTERM", () => {
  for (const [simulation_id, child] of live) {
    process.kill(-child.pid, "SIGKILL");
    // An orderly shutdown is no failure of a run: the next process starts it again.
    if (child.stopped) end(simulation_id, failed("stopped", "stopped by STOP"));
    else journal.requeue(simulation_id);
  }
  process.exit(0);
});
await events.publish();
