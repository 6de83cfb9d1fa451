"""What happens to runs, jobs and experiments: states, transitions, retries, and the pace of commands."""
