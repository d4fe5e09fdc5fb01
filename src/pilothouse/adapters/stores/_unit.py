"""The unit of work of every SQL store: the repositories, on one connection and within its transaction."""

from functools import cached_property

from sqlalchemy import Connection

from pilothouse.adapters.stores._batches import SqlBatches, SqlFiles
from pilothouse.adapters.stores._events import SqlEvents
from pilothouse.adapters.stores._machinery import (
    SqlCachePurges,
    SqlJournals,
    SqlLeases,
    SqlSealingKeys,
    SqlSecrets,
)
from pilothouse.adapters.stores._records import SqlRecords, SqlResources, SqlUsage
from pilothouse.adapters.stores._registry import SqlApiKeys, SqlModels, SqlSpecs, SqlTeams
from pilothouse.adapters.stores._releases import SqlFeedbacks, SqlRollouts


class SqlUnit:
    """`ports.store.UnitOfWork` on one connection, within its transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @cached_property
    def teams(self) -> SqlTeams:
        return SqlTeams(self._connection)

    @cached_property
    def keys(self) -> SqlApiKeys:
        return SqlApiKeys(self._connection)

    @cached_property
    def models(self) -> SqlModels:
        return SqlModels(self._connection)

    @cached_property
    def specs(self) -> SqlSpecs:
        return SqlSpecs(self._connection)

    @cached_property
    def events(self) -> SqlEvents:
        return SqlEvents(self._connection)

    @cached_property
    def records(self) -> SqlRecords:
        return SqlRecords(self._connection)

    @cached_property
    def usage(self) -> SqlUsage:
        return SqlUsage(self._connection)

    @cached_property
    def resources(self) -> SqlResources:
        return SqlResources(self._connection)

    @cached_property
    def seals(self) -> SqlSealingKeys:
        return SqlSealingKeys(self._connection)

    @cached_property
    def journals(self) -> SqlJournals:
        return SqlJournals(self._connection)

    @cached_property
    def leases(self) -> SqlLeases:
        return SqlLeases(self._connection)

    @cached_property
    def purges(self) -> SqlCachePurges:
        return SqlCachePurges(self._connection)

    @cached_property
    def secrets(self) -> SqlSecrets:
        return SqlSecrets(self._connection)

    @cached_property
    def rollouts(self) -> SqlRollouts:
        return SqlRollouts(self._connection)

    @cached_property
    def feedback(self) -> SqlFeedbacks:
        return SqlFeedbacks(self._connection)

    @cached_property
    def files(self) -> SqlFiles:
        return SqlFiles(self._connection)

    @cached_property
    def batches(self) -> SqlBatches:
        return SqlBatches(self._connection)
