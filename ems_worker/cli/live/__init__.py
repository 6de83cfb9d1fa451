"""The live screen of `ems watch`: `watched` gathers, `one` and `several` draw, `session` shows and listens to keys."""
