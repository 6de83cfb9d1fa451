// `go mod tidy` adds the dependencies: google.golang.org/grpc, google.golang.org/protobuf, github.com/nats-io/nats.go.
module example.com/orchestrator

go 1.19
