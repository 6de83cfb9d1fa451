"""What a plan amounts to: its points, their number and order, and the configuration of each run."""
