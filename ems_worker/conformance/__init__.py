"""The conformance kit: does an orchestrator, or a simulator, that somebody else wrote keep the contract?

`ems-conformance orchestrator` speaks to an orchestrator as the worker does and listens to the bus as the worker does;
`ems-conformance simulator` runs a simulator as an orchestrator does. Both print TAP. It shares nothing with the worker
but the protos, so that a misunderstanding in one of them can't hide in the other.

    cli.py           the command
    orchestrator.py  which checks there are, in which order, and their run
    starting.py, options.py, telling.py   the checks: StartSimulation; the optional calls; events
    kit.py           what the checks share: ids, commands, what was accepted, waiting
    calls.py, bus.py the two connections
    messages.py      an event's bytes, and what is wrong with them (pure)
    simulator.py     the checks of a simulator
    check.py, report.py   a check's outcome; TAP and JUnit (pure)
"""
