"""The meaning of a plan: its points, their number and order, and the configuration of each run."""
