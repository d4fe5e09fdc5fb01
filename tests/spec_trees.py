"""A good spec file, and changes to it, for tests of what reads spec files."""

from copy import deepcopy
from typing import Any

import yaml
from hypothesis import strategies as st

from pilothouse.app.engines import engine_drivers, option_types

ENGINES = option_types(engine_drivers())
"""What each engine takes, as the server knows it."""
FILE = b"""version: 1
models:
  tiny: {source: "file:/models/tiny.gguf", licence: MIT}
deployments:
  tiny:
    model: tiny
    engine_options: {slots: 4}
endpoints:
  chat:
    routes: [{deployment: tiny, weight: 100}]
    limits: {max_tokens: 64, timeout: 60s}
"""
TREE = yaml.safe_load(FILE)

VALUES = st.sampled_from(
    [None, True, False, "off", "", "x", 0, -1, 1, 1.5, [], {}, [None], {"a": 1}, "60s", 10**30]
).map(deepcopy)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good spec with one to three changes somewhere: a value, a key, something gone or too much."""
    tree = yaml.safe_load(FILE)
    for _ in range(draw(st.integers(1, 3))):
        owners = [tree]
        for one in owners:
            inner = one.values() if isinstance(one, dict) else one
            owners += [child for child in inner if isinstance(child, dict | list)]
        owner = draw(st.sampled_from(owners))
        keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
        act = draw(st.sampled_from(["set", "drop", "add"]))
        if act == "add" or not keys:
            if isinstance(owner, dict):
                owner[draw(st.sampled_from(["sources", "weights", "on", "x.y", "ü"]))] = draw(VALUES)
            else:
                owner.append(draw(VALUES))
        elif act == "set":
            owner[draw(st.sampled_from(keys))] = draw(VALUES)
        else:
            del owner[draw(st.sampled_from(keys))]
    return tree
