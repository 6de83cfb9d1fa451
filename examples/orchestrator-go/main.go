// A skeleton of an orchestrator: StartSimulation, a journal that outlives it, events as JSON. The other calls answer
// UNIMPLEMENTED, and the worker does without. Its simulation is a command that prints {"metrics": {...}}.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	pb "example.com/orchestrator/pb" // made by protoc from protos/fes/orchestrator/v1/orchestrator.proto
	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A run, and a line of the journal, where a run's last line stands. Event and Payload are empty while it is open.
type run struct {
	ID, Sha, Event string
	Payload        json.RawMessage `json:",omitempty"`
	Told           bool            // the broker has the event
}

type orchestrator struct {
	pb.UnimplementedOrchestratorClientServiceServer
	directory, simulator string
	stream               nats.JetStreamContext
	slots                chan struct{}
	mutex                sync.Mutex // over what follows
	journal              *os.File
	runs                 map[string]run
}

func (o *orchestrator) StartSimulation(_ context.Context, c *pb.StartSimulationCommand) (*pb.StartSimulationResponse, error) {
	if c.SimulationId == "" || c.SimulationId != filepath.Base(c.SimulationId) {
		return nil, status.Error(codes.InvalidArgument, "simulation_id must be one path segment")
	}
	o.mutex.Lock() // of two calls with one id the second finds what the first wrote
	defer o.mutex.Unlock()
	if known, found := o.runs[c.SimulationId]; found && known.Sha != c.ConfigSha {
		return nil, status.Error(codes.FailedPrecondition, "known with another config_sha")
	} else if found {
		return nil, status.Error(codes.AlreadyExists, "known")
	}
	o.write(run{ID: c.SimulationId, Sha: c.ConfigSha})
	go o.simulate(c)
	return &pb.StartSimulationResponse{SimulationId: c.SimulationId, Outcome: pb.StartOutcome_START_OUTCOME_ACCEPTED}, nil
}

// Nobody hears of a change before it is on disk. The caller holds the mutex.
func (o *orchestrator) write(r run) {
	line, err := json.Marshal(r)
	must(err)
	_, err = o.journal.Write(append(line, '\n'))
	must(err)
	must(o.journal.Sync())
	o.runs[r.ID] = r
}

func (o *orchestrator) simulate(c *pb.StartSimulationCommand) {
	o.slots <- struct{}{}
	defer func() { <-o.slots }()
	place := filepath.Join(o.directory, c.SimulationId)
	config := filepath.Join(place, "config.yaml")
	must(os.MkdirAll(place, 0o755))
	must(os.WriteFile(config, c.Config, 0o644))
	command := exec.Command("sh", "-c", o.simulator)
	command.Env = append(os.Environ(), "SIMULATION_ID="+c.SimulationId, "SIMULATION_CONFIG="+config,
		"SIMULATION_SEED="+strconv.FormatUint(c.RngSeed, 10), "SIMULATION_OUTPUT_DIR="+place)
	var result map[string]any
	output, err := command.Output()
	if err == nil {
		err = json.Unmarshal(output, &result)
	}
	if err != nil {
		o.end(c.SimulationId, "sim.run_failed", map[string]any{"error_kind": "simulation", "message": err.Error()})
		return
	}
	o.end(c.SimulationId, "sim.run_completed", map[string]any{"metrics": result["metrics"]})
}

func (o *orchestrator) end(id, event string, payload map[string]any) {
	payload["simulation_id"], payload["finished_at"] = id, time.Now().UTC().Format(time.RFC3339Nano)
	body, err := json.Marshal(payload)
	must(err)
	o.mutex.Lock()
	r := run{ID: id, Sha: o.runs[id].Sha, Event: event, Payload: body}
	o.write(r)
	o.mutex.Unlock()
	o.tell(r)
}

// Publishes until the broker has it, each time under the same message id: the stream drops repeats.
func (o *orchestrator) tell(r run) {
	for {
		_, err := o.stream.Publish(r.Event, r.Payload, nats.MsgId(r.ID+":"+r.Event))
		if err == nil {
			break
		}
		log.Printf("%s: not published yet: %v", r.ID, err)
		time.Sleep(250 * time.Millisecond)
	}
	r.Told = true
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.write(r)
}

// Goes on with what the journal has of an earlier life.
func (o *orchestrator) recover() {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	lines := json.NewDecoder(o.journal)
	for r := (run{}); lines.Decode(&r) == nil; r = (run{}) {
		o.runs[r.ID] = r
	}
	must(o.journal.Truncate(lines.InputOffset())) // a crash may have cut the last line short: nobody heard of it
	for id, r := range o.runs {
		if r.Event == "" {
			go o.end(id, "sim.run_failed", map[string]any{"error_kind": "infrastructure", "message": "restarted while it ran"})
		} else if !r.Told {
			go o.tell(r)
		}
	}
}

func main() { // orchestrator LISTEN NATS_URL DIRECTORY SIMULATOR
	client, err := nats.Connect(os.Args[2], nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1))
	must(err)
	stream, err := client.JetStream()
	must(err)
	journal, err := os.OpenFile(filepath.Join(os.Args[3], "journal"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	must(err)
	o := &orchestrator{directory: os.Args[3], simulator: os.Args[4], stream: stream, slots: make(chan struct{}, 4),
		journal: journal, runs: map[string]run{}}
	o.recover()
	listener, err := net.Listen("tcp", os.Args[1])
	must(err)
	server := grpc.NewServer()
	pb.RegisterOrchestratorClientServiceServer(server, o)
	must(server.Serve(listener))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
