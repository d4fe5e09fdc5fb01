"""
The pools that all workers share: what is granted to whom, so that nothing is spent twice.

A pool is one limit of one scope. Its promise, under any order, loss or
repetition of messages and any death:

    rate      units in the pool + units that workers hold <= the limit; a unit
              comes back by time alone
    parallel  units that living workers hold <= the limit
    budget    cost in the store + what workers were given and whose spending is
              not in the store yet <= the limit

A worker's lease ends when it is certain that it is dead and that all its records
are in the store: never by a broken connection alone. Pure: times are arguments.
"""

from collections.abc import Collection, Mapping
from typing import ClassVar

from pilothouse.domain.leasing import AccountState, Grant, Kind, LedgerAnswer, LedgerAsk
from pilothouse.domain.ledger import MINUTE_S


class Held:
    """What one worker was given from one pool, and what is known to be gone of it. All sums only grow."""

    __slots__ = ("granted", "returned", "spent", "unused")

    def __init__(self) -> None:
        self.granted = 0
        self.spent = 0
        """Of a budget: what the drain found in the store of this lease; of others: what the worker says."""
        self.returned = 0
        self.unused = 0
        """Of `outstanding`: what no request has reserved, as far as the worker said."""

    @property
    def outstanding(self) -> int:
        return self.granted - self.spent - self.returned


class Pool:
    """One limit of one scope."""

    def __init__(self, kind: Kind, limit: int, *, level: float, now: float) -> None:
        self.kind, self.limit = kind, limit
        self.level = level
        """Of a rate: units that nobody holds."""
        self.at = now
        self.settled = 0
        """Of a budget: cost in the store."""
        self.held: dict[str, Held] = {}

    @property
    def is_rate(self) -> bool:
        return self.kind in ("rpm", "tpm")

    @property
    def outstanding(self) -> int:
        return sum(max(0, held.outstanding) for held in self.held.values())

    def refill(self, now: float) -> None:
        elapsed, self.at = now - self.at, now
        if self.is_rate and elapsed > 0:
            most = self.limit - self.outstanding
            if self.level < most:
                self.level = min(most, self.level + elapsed * self.limit / MINUTE_S)

    def room(self) -> int:
        """Units that can be given to somebody now."""
        if self.is_rate:
            return max(0, int(self.level + 1e-9))
        return max(0, self.limit - self.settled - self.outstanding)

    def left(self) -> int:
        """Units that whoever asks may still hope for."""
        return self.room()

    def elsewhere(self, worker: str) -> int:
        """Units of a rate that the other workers hold unused."""
        if not self.is_rate:
            return 0
        return sum(held.unused for name, held in self.held.items() if name != worker)

    def hear(self, worker: str, state: AccountState) -> None:
        """Take over what a worker says of its own."""
        held = self.held.get(worker)
        if held is None and state.granted:
            self.recall(worker, state)
            held = self.held[worker]
        elif held is None or (state.granted == 0 and self.kind != "budget"):
            # A lease of which the worker knows nothing was never spent from; it began anew.
            held = self.held[worker] = Held()
        if state.returned > held.returned:
            if self.is_rate:
                self.level += state.returned - held.returned
            held.returned = state.returned
        if self.is_rate:
            held.unused = state.unused + max(0, held.granted - state.granted)
            held.spent = max(held.spent, state.spent)
            if held.outstanding < 0:  # more was used than reserved: the pool pays, and nobody gets that again
                self.level += held.outstanding
                held.granted -= held.outstanding

    def recall(self, worker: str, state: AccountState) -> None:
        """A worker that was thought to have forgotten it, and has not: nothing was granted since then."""
        held = self.held[worker] = Held()
        held.granted, held.spent, held.returned = state.granted, state.spent, state.returned
        self.level = min(self.level, max(0, self.limit - self.outstanding))

    def forget(self, worker: str) -> bool:
        """Whether all that this worker had is known to be spent or back, and nothing is kept of it."""
        held = self.held.get(worker)
        if held is not None and held.outstanding > 0:
            return False
        self.held.pop(worker, None)
        return True

    @property
    def is_untouched(self) -> bool:
        """As if it were made now."""
        return not self.held and (not self.is_rate or self.level >= self.limit)

    def claim(self, worker: str, state: AccountState, *, stood_alone: bool) -> None:
        """What a worker holds from before. Of a rate it was taken from an older level."""
        held = self.held[worker] = Held()
        held.granted = state.granted
        held.unused = state.unused
        most = 0 if stood_alone else max(0, self.limit - self.outstanding)
        self.level = min(self.level, most)

    def grant(self, worker: str, known: int, need: int, *, workers: int) -> int:
        """
        Units granted to this worker in all.

        Args:
            known: What it knows of already: the rest is on its way and is not given twice.
            need: What it cannot do without. It gets more: a part of the room for each worker.
        """
        held = self.held.setdefault(worker, Held())
        on_its_way = max(0, held.granted - known)
        room = self.room()
        share = room if workers <= 1 else room // (2 * workers)
        # Less than what is needed helps nobody, and would only lie there.
        wanted = max(need, share) - on_its_way
        if wanted > 0 and need - on_its_way <= room:
            given = min(room, wanted)
            held.granted += given
            held.unused += given
            if self.is_rate:
                self.level -= given
        return held.granted


class Pools:
    """
    All pools of one controller.

    Args:
        starts_full: Nobody served before: rates begin full. Otherwise they begin empty and refill by time,
            for nobody knows what was used.
        workers: How many share.
    """

    shape: ClassVar[type[Pool]] = Pool

    def __init__(self, *, workers: int, starts_full: bool, now: float) -> None:
        self.workers = workers
        self._starts_full = starts_full
        self._began = now
        self.pools: dict[str, Pool] = {}
        self.lives: dict[str, int] = {}
        """The claim that each worker made last: leases of older ones have become part of it."""
        self._connected: set[str] = set()
        self._passes_needed = 1
        self._has_passed = False
        self._writers: frozenset[str] = frozenset()
        self.is_settled = False
        """Budgets are known: all that was spent before this controller is in the store or claimed."""
        self.is_complete = starts_full
        """Whoever may hold something from an earlier controller has claimed it."""

    def lacks_base(self, states: Collection[AccountState]) -> list[AccountState]:
        """Budgets whose cost in the store is not known yet: open them first."""
        return [s for s in states if s.kind == "budget" and s.id not in self.pools]

    def open_budget(self, account_id: str, limit: int, settled: int, now: float) -> None:
        """A budget whose cost in the store is `settled`, all drained records included."""
        if account_id not in self.pools:
            pool = self.pools[account_id] = self.shape("budget", limit, level=0, now=now)
            pool.settled = settled

    def answer(self, ask: LedgerAsk, epoch: str, now: float) -> LedgerAnswer:
        """The answer to a worker; to one that knows another epoch only which one it is."""
        if ask.epoch != epoch:
            return LedgerAnswer(epoch=epoch)
        if ask.is_claim:
            self.claim(ask, now)
            return LedgerAnswer(epoch=epoch)
        self._connected.add(ask.worker)
        return LedgerAnswer(epoch=epoch, grants=tuple(self.exchange(ask.worker, ask.states, now)))

    def claim(self, ask: LedgerAsk, now: float) -> None:
        """A worker that introduces itself, with all that it holds: this replaces what was known of it."""
        worker = ask.worker
        self._connected.add(worker)
        if self.lives.get(worker) == ask.life:
            return  # a repeated message
        self.lives[worker] = ask.life
        for pool in self.pools.values():
            pool.refill(now)
            pool.held.pop(worker, None)
        for state in ask.states:
            if (known := self._pool(state, now)) is not None:
                known.claim(worker, state, stood_alone=ask.stood_alone)
        if ask.life > 1:
            # What it spent before this moment may not be in the store yet.
            self._passes_needed = 2
            self.is_settled = False
        self._look()

    def exchange(self, worker: str, states: Collection[AccountState], now: float) -> list[Grant]:
        """Hear what a worker says, and grant what it needs."""
        grants = []
        for state in states:
            pool = self._pool(state, now)
            if pool is None:
                continue
            pool.limit = state.limit
            pool.refill(now)
            pool.hear(worker, state)
            if state.is_last and pool.forget(worker):
                grants.append(Grant(state.id, state.granted, pool.left(), is_forgotten=True))
                continue
            held = pool.held[worker].granted
            if state.need > 0 and self._may_grant(pool):
                held = pool.grant(worker, state.granted, state.need, workers=self.workers)
            grants.append(Grant(state.id, held, pool.left(), pool.elsewhere(worker)))
        return grants

    def leave(self, worker: str) -> None:
        """The connection is gone. The worker may live on, and use what it holds."""
        self._connected.discard(worker)

    def settle(self, worker: str, life: int, costs: Mapping[str, int]) -> None:
        """Records of a worker are in the store: their cost by account."""
        for account_id, cost in costs.items():
            pool = self.pools.get(account_id)
            if pool is None:
                continue
            pool.settled += cost
            held = pool.held.get(worker)
            if held is not None and self.lives.get(worker) == life:
                held.spent += cost

    def passed(self, writers: Collection[str], *, is_whole: bool) -> None:
        """
        A pass of the drain ended, and `settle` has heard of all that it stored.

        Args:
            writers: Workers that still have segments.
            is_whole: It read every segment to its end.
        """
        self._writers = frozenset(writers)
        for worker in {name for pool in self.pools.values() for name in pool.held}:
            if worker not in self._connected and worker not in self._writers:
                for pool in self.pools.values():
                    pool.held.pop(worker, None)
                self.lives.pop(worker, None)
        self._has_passed = True
        if is_whole:
            self._passes_needed = max(0, self._passes_needed - 1)
        self._look()

    def forget_untouched(self, now: float) -> None:
        """Drop the pools that nobody holds anything of, and that would be the same if they were made anew."""
        for name, pool in list(self.pools.items()):
            if not pool.held:
                pool.refill(now)
                if pool.is_untouched:
                    del self.pools[name]

    def forget_ended(self, current: Collection[str]) -> None:
        """Drop the budgets of periods that are over."""
        for account_id in [a for a, pool in self.pools.items() if pool.kind == "budget"]:
            if account_id not in current:
                del self.pools[account_id]

    def _look(self) -> None:
        """Settled: all segments were read since the last claim, and whoever still writes has claimed."""
        if self._has_passed and self._writers <= self.lives.keys():
            self.is_complete = True
            self.is_settled = self.is_settled or not self._passes_needed

    def _may_grant(self, pool: Pool) -> bool:
        return self.is_settled if pool.kind == "budget" else self.is_complete

    def _pool(self, state: AccountState, now: float) -> Pool | None:
        pool = self.pools.get(state.id)
        if pool is None and state.kind != "budget":
            if self._starts_full or state.kind == "parallel":
                level: float = state.limit
            else:
                level = min(float(state.limit), (now - self._began) * state.limit / MINUTE_S)
            pool = self.pools[state.id] = self.shape(state.kind, state.limit, level=level, now=now)
        return pool
