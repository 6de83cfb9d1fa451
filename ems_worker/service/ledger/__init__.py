"""The experiments in memory, and the only code that changes the states of runs."""
