"""The conformance kit: checks whether an orchestrator, or a simulator, keeps the contract.

`ems-conformance orchestrator` calls an orchestrator and reads the bus as the worker does; `ems-conformance simulator`
runs a simulator as an orchestrator does. Both print TAP. The kit shares only the protos with the worker, so that a
misunderstanding in the worker can't hide in the kit.

    cli.py           the command
    orchestrator.py  the checks of an orchestrator, in their order
    starting.py, options.py, telling.py   those checks: StartSimulation; the optional calls; events
    kit.py           what those checks share: ids, commands, accepted runs, waiting
    calls.py, bus.py the connections to the orchestrator and to the broker
    messages.py      the bytes of an event, and their problems (pure)
    simulator.py     the checks of a simulator
    outcome.py       how a simulation ended, and its result (pure)
    check.py, report.py   running a check; TAP and JUnit (pure)
"""
