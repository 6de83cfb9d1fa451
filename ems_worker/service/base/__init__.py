"""What all services share: ports, the clock, metrics, supervision and crash points."""
