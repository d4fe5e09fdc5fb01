"""What the store keeps of files and batches: two more small repositories of its units."""

from typing import Protocol

from pilothouse.domain.batch import Batch, StoredFile


class Files(Protocol):
    def add(self, file: StoredFile) -> None: ...

    def get(self, file_id: str, *, team: str) -> StoredFile:
        """NotFound, also where it is another team's."""
        ...

    def page(
        self, *, team: str, key_id: str | None = None, after: str | None = None, limit: int
    ) -> list[StoredFile]:
        """Newest first; those after `after`, an id."""
        ...

    def used(self, team: str) -> tuple[int, int]:
        """How many files a team has, and their bytes."""
        ...

    def remove(self, file_id: str) -> None:
        """Nothing where it is not there."""
        ...

    def expired(self, now: float, *, limit: int) -> list[StoredFile]: ...

    def ids(self) -> list[str]:
        """All there are, of every team."""
        ...


class Batches(Protocol):
    def put(self, batch: Batch) -> None:
        """Add it, or replace its earlier state."""
        ...

    def get(self, batch_id: str, *, team: str) -> Batch:
        """NotFound, also where it is another team's."""
        ...

    def page(
        self, *, team: str, key_id: str | None = None, after: str | None = None, limit: int
    ) -> list[Batch]:
        """Newest first; those after `after`, an id."""
        ...

    def active(self) -> list[Batch]:
        """Those that have not ended, oldest first."""
        ...

    def forget(self, before: float, *, limit: int) -> int:
        """Delete at most `limit` older ones that have ended; return how many."""
        ...
