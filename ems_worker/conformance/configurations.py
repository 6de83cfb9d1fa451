"""The default configurations of the kit's runs: the platform's nested form, in YAML."""

CONTENT_TYPE = "application/yaml"

_REEF = """\
simulation_layer:
  world_definition: {{world_width: 60.0, world_height: 40.0}}
  initial_conditions: {{initial_food_count: 100, initial_fish_count: 30}}
  agent_defaults: {{default_agent_energy: 400.0}}
  run_control: {{max_ticks: {ticks}}}
"""
SHORT = _REEF.format(ticks=50).encode()
"""A run that completes at once."""
LONG = _REEF.format(ticks=20_000).encode()
"""A run that takes some seconds."""
UNUSABLE = b"simulation_layer: {[this is no configuration\n"
"""Not even YAML."""


def padded(configuration: bytes, size: int) -> bytes:
    """The same configuration, padded with comments to `size` bytes, or up to a line more."""
    comment = b"# " + 97 * b"." + b"\n"
    lines = max(0, size - len(configuration)) // len(comment) + 1
    return configuration.rstrip(b"\n") + b"\n" + lines * comment
