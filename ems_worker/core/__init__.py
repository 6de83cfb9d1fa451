"""The truth: pure functions of plain values. Nothing awaits, reads a clock, draws a random number, logs or does I/O."""
