"""The names on NATS: streams, subjects and headers. They are a contract with other programs.

No other module spells them out; `tests/unit/test_subjects.py` finds those that do.
"""

from typing import Final

# Streams, and the object store of plans that are too large for a message.
PLANS_STREAM: Final = "EMS_PLANS"
EVENTS_STREAM: Final = "SIM_EVENTS"
STATUS_STREAM: Final = "EMS_STATUS"
RESULTS_STREAM: Final = "EMS_RESULTS"
DEAD_LETTER_STREAM: Final = "EMS_DLQ"
PLAN_BUCKET: Final = "EMS_PLAN_OBJECTS"
PLAN_OBJECTS_STREAM: Final = f"OBJ_{PLAN_BUCKET}"

# Our own subjects. Documents about an experiment have its id as the last token, decisions the plan message's sequence,
# plans an optional publisher, dead letters and queries what they are about.
PREFIX: Final = "ems."
EXPERIMENT: Final = f"{PREFIX}experiment"
SUBMIT: Final = f"{EXPERIMENT}.submit"
DECISION: Final = f"{EXPERIMENT}.decision"
STATUS: Final = f"{EXPERIMENT}.status"
RESULT: Final = f"{EXPERIMENT}.result"
POINT: Final = f"{EXPERIMENT}.point"
SETTLED: Final = f"{EXPERIMENT}.settled"
CHANGE: Final = f"{EXPERIMENT}.change"
API: Final = f"{PREFIX}api"
DEAD_LETTERS: Final = f"{PREFIX}dlq"
DEAD_PLANS: Final = f"{DEAD_LETTERS}.plan"
DEAD_EVENTS: Final = f"{DEAD_LETTERS}.event"

# The platform's events of runs.
RUN_PREFIX: Final = "sim.run_"
RUN_STARTED: Final = f"{RUN_PREFIX}started"
RUN_COMPLETED: Final = f"{RUN_PREFIX}completed"
RUN_FAILED: Final = f"{RUN_PREFIX}failed"
RUN_METRICS: Final = f"{RUN_PREFIX}metrics"
RUN_EVENTS: Final = (RUN_STARTED, RUN_COMPLETED, RUN_FAILED, RUN_METRICS)

# The server's own.
JETSTREAM: Final = "$JS"
JETSTREAM_API: Final = f"{JETSTREAM}.API"
JETSTREAM_ACK: Final = f"{JETSTREAM}.ACK"

# Headers of a plan message: where its content is, and where the decision is also sent.
PLAN_OBJECT_HEADER: Final = "Ems-Plan-Object"
PLAN_DIGEST_HEADER: Final = "Ems-Plan-Digest"
REPLY_TO_HEADER: Final = "Ems-Reply-To"

# Headers of a dead letter: why it is one, and which message it was.
REASON_HEADER: Final = "Ems-Reason"
STREAM_HEADER: Final = "Ems-Stream"
SEQUENCE_HEADER: Final = "Ems-Sequence"
SUBJECT_HEADER: Final = "Ems-Subject"
DELIVERED_HEADER: Final = "Ems-Delivered"
SHA256_HEADER: Final = "Ems-Sha256"
BYTES_HEADER: Final = "Ems-Bytes"
BY_REFERENCE_HEADER: Final = "Ems-By-Reference"
