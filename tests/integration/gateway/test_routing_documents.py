"""The example of the how-to on routing runs, from the file to the answer."""

import re
from pathlib import Path

from gateway_rig import house, replica_entry, snapshot
from pilothouse.config import read_spec
from pilothouse.control.publish import endpoint_entry
from pilothouse.domain.errors import EngineUnavailable
from pilothouse.domain.snapshot import ReplicaEntry
from pilothouse.domain.speccheck import check_spec
from pilothouse.domain.status import SystemStatus
from spec_trees import ENGINES
from watched_engine import WatchedEngine, fails, words

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "routing-and-fallback.md"


async def test_the_example_of_the_how_to_falls_back_to_the_cloud():
    text, _ = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    spec = read_spec(text.encode())
    check_spec(spec, engines=ENGINES, targets=["local"])
    entry = endpoint_entry("assistant", spec, SystemStatus(), models={}, declared_at=1.0)

    def connect(replica: ReplicaEntry) -> WatchedEngine:
        here = replica.deployment != "cloud"
        return WatchedEngine(fails(EngineUnavailable("down")) if here else words("from the cloud"))

    replicas = [
        replica_entry(name, name.split("-")[0]) for name in ("main-0", "main-1", "canary-0", "cloud-0")
    ]
    async with house(connect, snapshot(*replicas, endpoints=(entry,))) as h:
        body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hi"}],"user":"ann"}'
        answers = [await h.ask(body=body) for _ in range(6)]

    assert {answer.status for answer in answers} == {200}
    assert answers[-1].headers["x-pilothouse-deployment"] == "cloud"
    assert b"from the cloud" in answers[-1].body
