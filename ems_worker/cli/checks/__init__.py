"""What `ems doctor` checks: `nats` from the broker's side, `machine` on this one, `orchestrator` over gRPC."""
