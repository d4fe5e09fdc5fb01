"""
Slot leases: which worker may use which of a replica's slots.

Workers never talk to each other, so a slot belongs to one of them alone until
that one is gone. Shares are equal; nobody's slots are taken away while it lives.
"""

from collections.abc import Collection, Mapping


def share(total: int, workers: int, rank: int) -> int:
    """
    How many of `total` slots the worker of `rank` (0-based) gets; the remainder goes to the lowest ranks.

    With fewer slots than workers, the lowest ranks get one each and the rest none.
    """
    return total // workers + (rank < total % workers)


def grant(
    total: int,
    held: Mapping[str, Collection[int]],
    *,
    worker: str,
    claimed: Collection[int] = (),
    size: int,
) -> tuple[int, ...]:
    """
    The slots that `worker` has from now on.

    What it has or claims stays its own, even beyond `size`, for it may be using
    it this moment; only what another worker holds is refused. Free slots fill it
    up to `size`, the lowest first.

    Args:
        total: Slots of the replica, numbered from 0.
        held: Slots by worker, this one included.
        claimed: Slots that the worker says it holds from an earlier controller.
        size: Its share.
    """
    others = {slot for name, slots in held.items() if name != worker for slot in slots}
    own = {slot for slot in (*held.get(worker, ()), *claimed) if 0 <= slot < total} - others
    for slot in range(total):
        if len(own) >= size:
            break
        if slot not in others:
            own.add(slot)
    return tuple(sorted(own))
