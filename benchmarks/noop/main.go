// A compiled orchestrator that does nothing: it accepts every run and ends it at once.
//
// It implements StartSimulation, StartSimulations, GetSimulationStatus and WatchCapacity, and publishes
// sim.run_completed without waiting for acknowledgements, so that what is measured is its client. With -silent it
// publishes nothing; with -single it implements StartSimulation and WatchCapacity only. At SIGUSR1 it prints the times of
// the first start call and of the last event, in nanoseconds since the Unix epoch (0: there was none), and forgets them.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"log"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	service = "fes.orchestrator.v1.OrchestratorClientService"
	subject = "sim.run_completed"

	accepted      = 1 // StartOutcome
	alreadyExists = 2

	notFound  = 1 // SimulationState
	completed = 5
)

// Messages pass through as bytes: what is needed of them is read and written below.
type raw struct{}

func (raw) Marshal(v interface{}) ([]byte, error) { return v.([]byte), nil }
func (raw) Unmarshal(data []byte, v interface{}) error {
	*(v.(*[]byte)) = data
	return nil
}
func (raw) String() string { return "raw" }

// orchestrator has the ids of accepted runs. A second start call for one of them is answered with ALREADY_EXISTS.
type orchestrator struct {
	mutex   sync.Mutex
	known   map[string]struct{}
	bus     *bus
	slots   uint64
	metrics []string
	first   int64
	last    int64
}

func (o *orchestrator) accept(id string) uint64 {
	o.mutex.Lock()
	_, known := o.known[id]
	o.known[id] = struct{}{}
	o.mutex.Unlock()
	if known {
		return alreadyExists
	}
	if o.bus != nil {
		o.bus.publish(o.completed(id))
		atomic.StoreInt64(&o.last, time.Now().UnixNano())
	}
	return accepted
}

// completed is the event of a run's end, in JSON as a client of the platform would write it.
func (o *orchestrator) completed(id string) []byte {
	hash := fnv.New64a()
	hash.Write([]byte(id))
	value := float64(hash.Sum64()%1000000) / 1000
	stamp := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	event := append(make([]byte, 0, 512), `{"simulation_id":"`+id+`","metrics":{`...)
	for index, name := range o.metrics {
		if index > 0 {
			event = append(event, ',')
		}
		event = append(event, `"`+name+`":`...)
		event = strconv.AppendFloat(event, value, 'f', -1, 64)
		value++
	}
	event = append(event, `},"started_at":"`+stamp+`","finished_at":"`+stamp+`","model_version":"noop-1"}`...)
	return event
}

func (o *orchestrator) startSimulation(request []byte) ([]byte, error) {
	atomic.CompareAndSwapInt64(&o.first, 0, time.Now().UnixNano())
	id := field(request, 1)
	return appendVarint(appendString(nil, 1, id), 2, o.accept(id)), nil
}

func (o *orchestrator) startSimulations(request []byte) ([]byte, error) {
	var reply []byte
	each(request, 1, func(command []byte) {
		response, _ := o.startSimulation(command)
		reply = appendBytes(reply, 1, response)
	})
	return reply, nil
}

func (o *orchestrator) getSimulationStatus(request []byte) ([]byte, error) {
	var reply []byte
	each(request, 1, func(name []byte) {
		o.mutex.Lock()
		_, known := o.known[string(name)]
		o.mutex.Unlock()
		state := uint64(notFound)
		if known {
			state = completed
		}
		reply = appendBytes(reply, 1, appendVarint(appendString(nil, 1, string(name)), 2, state))
	})
	return reply, nil
}

func (o *orchestrator) watchCapacity(_ interface{}, stream grpc.ServerStream) error {
	reply := appendVarint(nil, 1, o.slots)
	reply = appendVarint(reply, 4, 4<<20)
	if err := stream.SendMsg(appendString(reply, 5, "noop-1")); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// bus publishes to NATS, with one write for all messages that wait.
type bus struct {
	mutex  sync.Mutex
	wake   *sync.Cond
	buffer []byte
	prefix string
}

func connect(address string) *bus {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	b := &bus{prefix: "PUB " + subject + " "}
	b.wake = sync.NewCond(&b.mutex)
	b.buffer = append(b.buffer, "CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"noop\"}\r\n"...)
	go b.answerPings(connection)
	go b.write(connection)
	return b
}

func (b *bus) publish(event []byte) {
	b.mutex.Lock()
	b.buffer = append(b.buffer, fmt.Sprintf("%s%d\r\n", b.prefix, len(event))...)
	b.buffer = append(append(b.buffer, event...), "\r\n"...)
	b.mutex.Unlock()
	b.wake.Signal()
}

func (b *bus) write(connection net.Conn) {
	var sending []byte
	for {
		b.mutex.Lock()
		for len(b.buffer) == 0 {
			b.wake.Wait()
		}
		sending, b.buffer = b.buffer, sending[:0]
		b.mutex.Unlock()
		if _, err := connection.Write(sending); err != nil {
			log.Fatal(err)
		}
	}
}

func (b *bus) answerPings(connection net.Conn) {
	lines := bufio.NewReader(connection)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			os.Exit(0)
		}
		if strings.HasPrefix(line, "PING") {
			b.mutex.Lock()
			b.buffer = append(b.buffer, "PONG\r\n"...)
			b.mutex.Unlock()
			b.wake.Signal()
		} else if strings.HasPrefix(line, "-ERR") {
			log.Fatal(line)
		}
	}
}

func appendString(to []byte, number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(to, number, protowire.BytesType), value)
}

func appendBytes(to []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, number, protowire.BytesType), value)
}

func appendVarint(to []byte, number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(to, number, protowire.VarintType), value)
}

// each calls f with every value of a field that has bytes.
func each(message []byte, wanted protowire.Number, f func([]byte)) {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return
		}
		if number == wanted && kind == protowire.BytesType {
			value, size := protowire.ConsumeBytes(message[tag:])
			if size < 0 {
				return
			}
			f(value)
		}
		size := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if size < 0 {
			return
		}
		message = message[tag+size:]
	}
}

func field(message []byte, wanted protowire.Number) string {
	var found string
	each(message, wanted, func(value []byte) { found = string(value) })
	return found
}

func unary(name string, answer func([]byte) ([]byte, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(
		_ interface{}, _ context.Context, decode func(interface{}) error, _ grpc.UnaryServerInterceptor,
	) (interface{}, error) {
		var request []byte
		if err := decode(&request); err != nil {
			return nil, err
		}
		return answer(request)
	}}
}

func unimplemented([]byte) ([]byte, error) { return nil, status.Error(codes.Unimplemented, "-single") }

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", "127.0.0.1:0", "address")
	server := flag.String("server", "", "host:port of nats-server")
	silent := flag.Bool("silent", false, "publish nothing")
	single := flag.Bool("single", false, "implement no calls for several runs")
	slots := flag.Uint64("slots", 1000, "what WatchCapacity reports")
	metrics := flag.String("metrics", "population,m1,m2,m3,m4,m5,m6,m7,m8", "names of the metrics of each run")
	flag.Parse()

	o := &orchestrator{known: map[string]struct{}{}, slots: *slots, metrics: strings.Split(*metrics, ",")}
	if !*silent {
		o.bus = connect(*server)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		for range signals {
			fmt.Println(atomic.SwapInt64(&o.first, 0), atomic.SwapInt64(&o.last, 0))
		}
	}()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	batch, states := o.startSimulations, o.getSimulationStatus
	if *single {
		batch, states = unimplemented, unimplemented
	}
	grpcServer := grpc.NewServer(grpc.CustomCodec(raw{}), grpc.MaxRecvMsgSize(4<<20))
	grpcServer.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*interface{})(nil),
		Methods: []grpc.MethodDesc{
			unary("StartSimulation", o.startSimulation),
			unary("StartSimulations", batch),
			unary("GetSimulationStatus", states),
			unary("ControlSimulation", unimplemented),
		},
		Streams: []grpc.StreamDesc{{StreamName: "WatchCapacity", Handler: o.watchCapacity, ServerStreams: true}},
	}, o)
	if err := grpcServer.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
