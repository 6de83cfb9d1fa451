"""The experiments in memory and the one place where runs change state."""
