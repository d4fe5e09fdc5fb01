"""A purge is committed, then told; and told again after a restart."""

from pilothouse.control.purges import Purges
from pilothouse.domain.caching import purge_scope
from pilothouse.testing.memory_store import MemoryStore


def transact(store):
    async def run(work, /, *, urgent=False):
        with store.unit(urgent=urgent) as unit:
            return work(unit)

    return run


async def test_purges_add_up_and_are_told_again_after_a_restart():
    store, told = MemoryStore(), []
    purges = Purges(transact(store), changed=told.append)

    await purges.purge(team="a", endpoint=None)
    await purges.purge(team="a", endpoint=None)
    await purges.purge(team=None, endpoint="chat")
    await Purges(transact(store), changed=told.append).load()

    assert told[1] == {purge_scope("a", ""): 2}
    assert told[-1] == {purge_scope("a", ""): 2, purge_scope("", "chat"): 1}
