"""Plans from message to decision: read, checked, examined, recorded, acknowledged."""
