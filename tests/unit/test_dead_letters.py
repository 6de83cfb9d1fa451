"""Which dead letters may be replayed, and with which headers."""

import pytest

from ems_worker.core.access import dead_letters


@pytest.mark.parametrize(
    ("kind", "subject", "stream"),
    [
        ("plan", "ems.experiment.submit", "EMS_PLANS"),
        ("plan", "ems.experiment.submit.evolution", "EMS_PLANS"),
        ("event", "sim.run_completed", "SIM_EVENTS"),
        ("event", "sim.run_started.reef.p1", "platform-events"),
        ("event", "sim.run_failed.a", "SIM_EVENTS"),
        ("event", "sim.run_metrics", "SIM_EVENTS"),
        ("event", "sim.run_metrics.élan", "SIM_EVENTS"),
    ],
)
def test_plans_and_run_events_may_be_replayed(kind: str, subject: str, stream: str) -> None:
    """Their subjects and streams have to fit their kind."""
    assert dead_letters.refusal(kind, subject, stream) is None


@pytest.mark.parametrize(
    ("kind", "subject", "stream", "named"),
    [
        ("plan", "$JS.API.STREAM.DELETE.EMS_RESULTS", "EMS_PLANS", "STREAM.DELETE"),
        ("event", "$JS.API.STREAM.DELETE.EMS_RESULTS", "SIM_EVENTS", "STREAM.DELETE"),
        ("plan", "ems.experiment.submit.a.b", "EMS_PLANS", "a.b"),
        ("plan", "ems.experiment.submit.", "EMS_PLANS", "no subject of plans"),
        ("plan", "ems.experiment.submit.*", "EMS_PLANS", "no subject of plans"),
        ("plan", "ems.experiment.submitted", "EMS_PLANS", "no subject of plans"),
        ("plan", "sim.run_completed", "EMS_PLANS", "no subject of plans"),
        ("event", "ems.experiment.submit", "SIM_EVENTS", "no subject of events"),
        ("event", "sim.run_completed.>", "SIM_EVENTS", "no subject of events"),
        ("event", "sim.run_completed..a", "SIM_EVENTS", "no subject of events"),
        ("event", "sim.run_completed a 5", "SIM_EVENTS", "no subject of events"),
        ("event", "sim.run_completed\n", "SIM_EVENTS", "no subject of events"),
        ("event", "sim.run_completed.\x07", "SIM_EVENTS", "no subject of events"),
        ("event", "sim.run_stopped", "SIM_EVENTS", "no subject of events"),
        ("event", "sim.run_completed." + "x" * 600, "SIM_EVENTS", "no subject of events"),
        ("event", "", "SIM_EVENTS", "no subject of events"),
        ("plan", "ems.experiment.submit", "KV_secrets", "KV_secrets"),
        ("event", "sim.run_completed", "SIM_EVENTS 5 ", "holds no events"),
        ("event", "sim.run_completed", "A.B", "holds no events"),
        ("event", "sim.run_completed", "", "holds no events"),
        ("other", "sim.run_completed", "SIM_EVENTS", "'other'"),
    ],
)
def test_any_other_letter_is_refused_with_the_reason(kind: str, subject: str, stream: str, named: str) -> None:
    """The reason quotes the letter's own text, with unprintable characters escaped."""
    reason = dead_letters.refusal(kind, subject, stream)
    assert reason is not None
    assert named in reason
    assert reason.isprintable()


def test_only_headers_that_describe_the_content_are_replayed() -> None:
    """Header names are recognized in any case. Commands to a server or worker, and line breaks, are not replayed."""
    given = {
        "content-type": "application/yaml",
        "Content-Encoding": "gzip",
        "Ems-Plan-Object": "name",
        "Ems-Plan-Digest": "SHA-256=x\r\n Nats-Rollup: all",
        "traceparent": "x" * 2000,
        "Ems-Reply-To": "_INBOX.x",
        "Nats-Rollup": "all",
        "Nats-Msg-Id": "once",
        "Nats-TTL": "1s",
        "Nats-Expected-Stream": "EMS_PLANS",
        "X-Other": "1",
    }
    assert dead_letters.headers(given) == {
        "Content-Type": "application/yaml",
        "Content-Encoding": "gzip",
        "Ems-Plan-Object": "name",
    }
