"""
The planner's memory against the engine's: planned, then started and measured.

SmolLM2 in six combinations of slots and context. Three are among those that the
formula was made with, three were chosen afterwards. Every slot answers a chat of 250 tokens, then
the child's peak (VmHWM) and its proportional share (PSS) are read.

    python bench/planner.py [--quick] [--json]
"""

import asyncio
from pathlib import Path

from msgspec import Struct

from pilothouse.domain.capacity import Facts, Room, plan_capacity
from pilothouse.domain.model import Artifact
from pilothouse.domain.sizing import Wish
from rig.engine import artifact, ask, engine
from rig.machine import peak_rss_bytes
from rig.report import Figure, Report, options, publish, tell

WRITTEN_WITH = ((1, 512), (4, 1024), (4, 4096))
HELD_OUT = ((3, 1536), (6, 3072), (8, 768))
MB = 1e6


class Measured(Struct):
    planned: int
    peak: int
    share: int


def main() -> None:
    given = options(__doc__ or "").parse_args()
    model = artifact()
    figures = []
    for kind, pairs in (("written with", WRITTEN_WITH), ("held out", HELD_OUT)):
        for slots, context in pairs[:1] if given.quick else pairs:
            one = asyncio.run(_measure(model, slots, context))
            name = f"{slots} x {context}, {kind}"
            tell(
                f"{name}: {one.planned / MB:.0f} planned, {one.peak / MB:.0f} peak, {one.share / MB:.0f} PSS"
            )
            error = abs(one.planned / one.peak - 1)
            figures += [
                Figure(what=f"{name}: planned", value=one.planned / MB, unit="MB"),
                Figure(what=f"{name}: peak resident", value=one.peak / MB, unit="MB"),
                Figure(what=f"{name}: share (PSS)", value=one.share / MB, unit="MB"),
                Figure(what=f"{name}: error", value=error * 100, unit="%", goal="<= 10"),
            ]
    report = Report(
        bench="planner: memory of the real engine, planned and measured",
        method="SmolLM2 135M Q4_1; each slot answers a chat of 250 tokens; planned over the child's peak",
        figures=figures,
    )
    publish(report, given)


async def _measure(model: Artifact, slots: int, context: int) -> Measured:
    facts = Facts(name="m", origin="file", format="gguf", file_bytes=model.bytes, header=model.header)
    room = Room(memory_bytes=1 << 40, disk_bytes=1 << 40)
    made = plan_capacity(facts, Wish(slots=slots, context_tokens=context), room)
    async with engine(model, slots=slots, context_tokens=context) as (connected, _, pid):
        prompt = "one two three four five six seven eight " * 30
        asked = (ask(connected, prompt, max_tokens=8, slot=slot, is_chat=True) for slot in range(slots))
        await asyncio.gather(*asked)
        return Measured(made.here.total_bytes, peak_rss_bytes(pid), _share(pid))


def _share(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024


if __name__ == "__main__":
    main()
