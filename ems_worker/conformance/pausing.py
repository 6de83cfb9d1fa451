"""Checks of PAUSE and RESUME, and of an orderly shutdown."""

from ems_worker.conformance import calls, check, kit, messages
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb

_GOES_ON = (pb.SIMULATION_STATE_RUNNING, pb.SIMULATION_STATE_QUEUED)


async def pause_resume(session: kit.Session) -> None:
    """PAUSE of a running run is answered PAUSED, again as well; after RESUME it goes on to its end."""
    name = (await session.begin_long()).simulation_id
    await _pause(session, name)
    await _pause(session, name)
    statuses, code, message = await session.rpc.status([name])
    if code != calls.UNIMPLEMENTED:
        check.require(
            code == "OK" and len(statuses) == 1, f"the status of a paused run was answered {code} ({message})"
        )
        state = pb.SimulationState.Name(statuses[0].state)
        paused = statuses[0].state == pb.SIMULATION_STATE_PAUSED
        check.require(paused, f"PAUSE was answered PAUSED, but the status of the run is {state}")
    response, code, message = await session.control(name, pb.CONTROL_ACTION_RESUME)
    check.require(response is not None, f"RESUME of a paused run was answered {code} ({message})")
    assert response is not None
    state = pb.SimulationState.Name(response.state)
    check.require(response.state in _GOES_ON, f"RESUME of a paused run was answered with the state {state}")
    end = await session.end_of(name)
    check.require(end.kind == messages.COMPLETED, f"the run that was paused and resumed ended in {end.kind}")


async def stop_paused(session: kit.Session) -> None:
    """STOP ends a paused run with sim.run_failed of the kind stopped."""
    name = (await session.begin_long()).simulation_id
    await _pause(session, name)
    _, code, message = await session.stop(name)
    check.require(code == "OK", f"STOP of a paused run was answered {code} ({message})")
    end = await session.end_of(name)
    kind = end.payload.get("error_kind")
    check.require(kind == "stopped", f"the paused run that was stopped ended in {end.kind}, error_kind {kind!r}")


async def orderly_restart(session: kit.Session) -> None:
    """A run that is open at an orderly shutdown doesn't fail: it goes on or starts again, or may be sent again."""
    if session.options.restart_in_order is None:
        raise check.Skipped(
            "give --orderly-restart-command, which shuts the orchestrator down in order and starts it again"
        )
    running = await session.begin_long()
    name = running.simulation_id
    session.require_open(name)
    session.open_at_restart.add(name)
    await session.options.restart_in_order()
    await session.reachable()
    statuses, _, _ = await session.rpc.status([name])
    if [status.state for status in statuses] == [pb.SIMULATION_STATE_NOT_FOUND]:
        reply = await session.rpc.start(running)
        check.require(reply.code == calls.ACCEPTED, f"the run was forgotten, but its start was answered {reply}")
    end = await session.end_of(name)
    why = f"{end.payload.get('error_kind')}: {end.payload.get('message')}"
    check.require(end.kind == messages.COMPLETED, f"the run that was open at the shutdown failed ({why})")


async def _pause(session: kit.Session, name: str) -> None:
    response, code, message = await session.control(name, pb.CONTROL_ACTION_PAUSE)
    if response is None or response.state != pb.SIMULATION_STATE_PAUSED:
        session.require_open(name)
    check.require(response is not None, f"PAUSE of a running run was answered {code} ({message})")
    assert response is not None
    state = pb.SimulationState.Name(response.state)
    paused = response.state == pb.SIMULATION_STATE_PAUSED
    check.require(paused, f"PAUSE of a running run was answered with the state {state}; only PAUSED confirms it")
