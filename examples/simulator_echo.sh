#!/bin/sh
# The smallest useful simulator: what an orchestrator gives it, and what it gives back.
#   ems up --simulator 'sh examples/simulator_echo.sh {config} {seed}'
config=$1 seed=$2
[ -r "$config" ] || { echo "no configuration at $config" >&2; exit 65; }

# A file of its own, beside the result: named in it as an artifact.
{ echo "line,length"; awk '{ print NR "," length($0) }' "$config"; } > "$SIMULATION_OUTPUT_DIR/lines.csv"

# The result: the last line that is a JSON object. Anything may be printed before it.
echo "run $SIMULATION_ID is done"
echo "{\"metrics\": {\"lines\": $(wc -l < "$config"), \"seed_digits\": ${#seed}}, \"artifacts\": {\"lines\": \"lines.csv\"}}"
