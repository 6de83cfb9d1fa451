"""The commands `ems`, `ems-publish` and `ems-worker`. Data goes to stdout, everything else to stderr."""
