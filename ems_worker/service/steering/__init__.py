"""Changes that people request: recorded before the reply, then carried out by a task, then closed."""
