#!/bin/sh
# The smallest useful simulator. It shows what a simulator gets from an orchestrator, and what it returns.
#   ems up --simulator 'sh examples/simulator_echo.sh {config} {seed}'
config=$1 seed=$2
[ -r "$config" ] || { echo "no configuration at $config" >&2; exit 65; }

# An output file. The result names it as an artifact.
{ echo "line,length"; awk '{ print NR "," length($0) }' "$config"; } > "$SIMULATION_OUTPUT_DIR/lines.csv"

# The result is the last line that is a JSON object. Other output may precede it.
echo "run $SIMULATION_ID is done"
echo "{\"metrics\": {\"lines\": $(wc -l < "$config"), \"seed_digits\": ${#seed}}, \"artifacts\": {\"lines\": \"lines.csv\"}}"
