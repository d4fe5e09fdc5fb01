from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.leasing import Grant, Kind
from pilothouse.domain.ledger import Account, Book, Plan, Reservation, Shortage


def leased(kind: Kind, units: int, *, limit: int = 1000, scope: str = "key:k") -> Account:
    account = Account(f"{scope}|{kind}", kind, limit, scope)
    account.take_in(Grant(account.id, units, 0), 0.0)
    return account


def reserve(
    book: Book, plan: Plan, *, tokens: int = 0, cost: int = 0, now: float = 0.0
) -> Reservation | Shortage:
    return book.reserve(plan, tokens, cost, now=now, expires=now + 60)


def test_a_refusal_at_one_scope_takes_nothing_at_the_others() -> None:
    rich, poor = leased("tpm", 500), leased("tpm", 50, scope="team:t")

    refused = reserve(Book(), Plan([rich, leased("rpm", 5), poor]), tokens=100)

    assert isinstance(refused, Shortage)
    assert refused.account is poor
    assert (rich.available, rich.reserved) == (500, 0)


def test_what_was_not_used_comes_back_and_a_second_settling_changes_nothing() -> None:
    book, tokens, money = Book(), leased("tpm", 500), leased("budget", 1000)
    held = reserve(book, Plan([tokens, money]), tokens=200, cost=300)
    assert isinstance(held, Reservation)

    assert book.settle(held, 20, 30)
    assert not book.settle(held, 20, 30)

    assert (tokens.available, money.available) == (480, 970)
    assert tokens.state().spent == 20
    assert book.open == 0


def test_a_slot_comes_back_when_the_request_ends() -> None:
    book, slots = Book(), leased("parallel", 1)
    plan = Plan([slots])
    first = reserve(book, plan)

    refused = reserve(book, plan)
    assert isinstance(refused, Shortage)
    assert isinstance(first, Reservation)
    book.settle(first, 0, 0)

    assert isinstance(reserve(book, plan), Reservation)


def test_a_reservation_that_nobody_settled_is_settled_in_full_after_its_deadline() -> None:
    book, money, slots = Book(), leased("budget", 1000), leased("parallel", 1)
    reserve(book, Plan([money, slots]), cost=300)

    assert book.expire(59.0) == 0
    assert book.expire(61.0) == 1

    assert (money.available, money.reserved, slots.available) == (700, 0, 1)


def test_more_is_asked_for_before_an_account_runs_dry() -> None:
    book, requests = Book(), leased("rpm", 10)
    plan = Plan([requests])

    for _ in range(5):
        reserve(book, plan)
    assert not book.asks
    reserve(book, plan)

    assert book.asks
    assert requests.state().need == 1


def test_an_answer_that_is_repeated_gives_nothing_twice() -> None:
    account = leased("rpm", 10)

    account.take_in(Grant(account.id, 10, 0), 1.0)

    assert account.available == 10


def test_a_request_that_no_limit_of_that_size_can_take_is_told_so() -> None:
    refused = reserve(Book(), Plan([leased("tpm", 100, limit=100)]), tokens=101)

    assert isinstance(refused, Shortage)
    assert refused.is_hopeless
    assert not refused.may_wait(5.0)


def test_the_time_to_wait_is_what_the_missing_units_take_to_come_back() -> None:
    refused = reserve(Book(), Plan([leased("rpm", 0, limit=60)]))

    assert isinstance(refused, Shortage)
    assert refused.retry_after_s(0.0) == 1.0
    assert refused.may_wait(1.0)
    assert not refused.may_wait(0.5)


def test_alone_it_refills_by_the_monotonic_clock_and_a_clock_that_goes_back_does_nothing() -> None:
    book, requests = Book(), leased("rpm", 0, limit=60)
    requests.stand_alone(60, 100.0)
    plan = Plan([requests])

    assert isinstance(reserve(book, plan, now=50.0), Shortage)
    assert isinstance(reserve(book, plan, now=50.5), Shortage)
    assert isinstance(reserve(book, plan, now=51.0), Reservation)
    requests.refill(1e9)

    assert requests.available == 60


@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.integers(0, 300), st.integers(0, 100), st.booleans()), max_size=40
    )
)
def test_an_account_never_loses_nor_invents_a_unit(calls: list[tuple[int, int, int, bool]]) -> None:
    book, tokens = Book(), leased("tpm", 1000)
    plan = Plan([tokens])
    open_ones: list[tuple[Reservation, int]] = []
    used = 0
    for bound, real, which, settles in calls:
        made = reserve(book, plan, tokens=bound)
        if isinstance(made, Reservation):
            open_ones.append((made, min(real, bound)))
        if settles and open_ones:
            done, spent = open_ones.pop(which % len(open_ones))
            book.settle(done, spent, 0)
            used += spent

        assert tokens.available >= 0
        assert tokens.available + tokens.reserved + used == 1000
        assert tokens.state().spent == used
