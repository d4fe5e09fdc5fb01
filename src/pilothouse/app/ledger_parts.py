"""What grants leases of limits and budgets: this controller's desk, and a treasury shared with others."""

from hashlib import sha256

from pilothouse.adapters.treasuries.redis import RedisTreasury
from pilothouse.app.home import write_private
from pilothouse.app.stores import holder_of, place_of
from pilothouse.config import Settings, read_secret
from pilothouse.control.allotments import Allotments
from pilothouse.control.ledger import LedgerDesk
from pilothouse.control.publish import Publishing
from pilothouse.control.spending import Spending
from pilothouse.control.store_thread import StoreThread
from pilothouse.domain.allotment import AllottedPools
from pilothouse.domain.pools import Pools
from pilothouse.kit.clock import Clock
from pilothouse.kit.ids import new_id
from pilothouse.kit.log import Log
from pilothouse.kit.resp import RespClient, parse_address

TREASURY_S = 0.5
"""How long the treasury may take. A request waits a tenth of a second at the most, and others not at all."""
TREASURY_LOST = "what grants the limits that are shared with other servers is out of reach"


def build_ledger(
    settings: Settings, store: StoreThread, clock: Clock, publishing: Publishing, log: Log
) -> LedgerDesk:
    """The desk that answers the workers, and what feeds it where limits are shared with other servers."""
    epoch = new_id()
    shape = AllottedPools if settings.ledger_url else Pools
    pools = shape(workers=settings.workers, starts_full=is_first_of_run(settings), now=clock.monotonic())
    allotments = None
    if isinstance(pools, AllottedPools):

        def tell(is_lost: bool) -> None:  # noqa: FBT001 - a callback of one fact
            log.event("treasury_lost" if is_lost else "treasury_back", "error" if is_lost else "info")
            publishing.warn("treasury", TREASURY_LOST if is_lost else "")

        allotments = Allotments(
            RedisTreasury(open_client(settings)),
            pools,
            clock,
            house=house_of(settings),
            life=epoch,
            recall=Spending(store, pools, clock, lambda: publishing.base).recall,
            when_lost=settings.ledger_lost,
            changed=tell,
        )
    desk = LedgerDesk(store, clock, pools, epoch=epoch, allotments=allotments)
    publishing.answer_ledger, publishing.left = desk.answer, desk.leave
    return desk


def open_client(settings: Settings) -> RespClient:
    reference = settings.ledger_password
    password = read_secret(reference).reveal() if reference else ""
    return RespClient(parse_address(settings.ledger_url), timeout_s=TREASURY_S, password=password)


def house_of(settings: Settings) -> str:
    """The store by which spending is counted, whichever machine works with it now; not readable."""
    name = holder_of(settings) if settings.is_sqlite else place_of(settings)
    return sha256(name.encode()).hexdigest()[:16]


def is_first_of_run(settings: Settings) -> bool:
    """Whether no controller served before in this run of the supervisor, which writes the settings once."""
    marker = settings.run_path / "ledger.began"
    try:
        found = (settings.run_path / "settings").stat()
    except OSError:
        return True
    this_run = f"{found.st_ino} {found.st_mtime_ns}".encode()
    if marker.exists() and marker.read_bytes() == this_run:
        return False
    write_private(marker, this_run)
    return True
