"""
The tables of every SQL store, and the revision of them.

All carry the team; "" is what belongs to no team alone. Only leases and journal
positions do not, for they are about processes. Text of people rests sealed, in
`contents`, apart from the facts: a report over a million records does not read
past a million prompts. A change here comes with a migration and a new `HEAD`.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

HEAD = "0009"
"""Revision of the newest migration: what a database made from these tables is stamped with."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _team() -> "Column[str]":
    return Column("team", String, nullable=False, server_default="")


teams = Table(
    "teams",
    metadata,
    Column("name", String, primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("limits", Text),
    Column("per_subject", Text),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("team", String, ForeignKey("teams.name"), nullable=False),
    Column("role", String, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("endpoints", Text),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("name", String, nullable=False),
    Column("limits", Text),
    Index(None, "team", "created_at", "id"),
    Index(None, "created_at", "id"),
)

models = Table(
    "models",
    metadata,
    Column("name", String, primary_key=True),
    Column("version", String, primary_key=True),
    _team(),
    Column("digest", String, nullable=False, index=True),
    Column("created_at", Float, nullable=False),
    Column("document", Text, nullable=False),
)

specs = Table(
    "specs",
    metadata,
    Column("revision", Integer, primary_key=True),
    _team(),
    Column("document", Text, nullable=False),
    Column("author", String, nullable=False),
    Column("time", Float, nullable=False),
)

_NAMES_ONE = text("subject_hash != ''")

events = Table(
    "events",
    metadata,
    Column("id", String, primary_key=True),
    _team(),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("is_warning", Boolean, nullable=False),
    Column("first_time", Float, nullable=False),
    Column("time", Float, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Index(None, "time", "id"),
    Index(None, "kind", "name", "time", "id"),
)

records = Table(
    "records",
    metadata,
    Column("id", String, primary_key=True),
    Column("time", Float, nullable=False),
    Column("team", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("deployment", String, nullable=False),
    Column("replica", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("code", String, nullable=False),
    Column("subject_hash", String, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("ttft_ms", Float),
    Column("duration_ms", Float, nullable=False),
    Column("overhead_us", BigInteger, nullable=False),
    Column("cost_micro_usd", BigInteger, nullable=False),
    Column("cache", String, nullable=False),
    Column("finish_reason", String, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("shadow_of", String, nullable=False, server_default=""),
    Index(None, "time", "id"),
    Index(None, "team", "time", "id"),
    # Few requests name a person: the others cost this index nothing.
    Index(None, "team", "subject_hash", "time", sqlite_where=_NAMES_ONE, postgresql_where=_NAMES_ONE),
)

contents = Table(
    "contents",
    metadata,
    Column("record_id", String, ForeignKey("records.id", ondelete="CASCADE"), primary_key=True),
    Column("team", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("time", Float, nullable=False),
    Column("sealing_key", String, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Index(None, "endpoint", "time"),
    Index(None, "sealing_key"),
)

usage_minutes = Table(
    "usage_minutes",
    metadata,
    Column("minute", BigInteger, primary_key=True),
    Column("team", String, primary_key=True),
    Column("key_id", String, primary_key=True),
    Column("endpoint", String, primary_key=True),
    Column("deployment", String, primary_key=True),
    Column("code", String, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cost_micro_usd", BigInteger, nullable=False),
    Column("duration_ms", Float, nullable=False),
    sqlite_with_rowid=False,
)

resource_minutes = Table(
    "resource_minutes",
    metadata,
    Column("minute", BigInteger, primary_key=True),
    Column("role", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("deployment", String, nullable=False),
    _team(),
    Column("cpu_seconds", Float, nullable=False),
    Column("rss_bytes", BigInteger, nullable=False),
    Column("gpu_utilization_ratio", Float),
    Column("gpu_memory_bytes", BigInteger),
    sqlite_with_rowid=False,
)

sealing_keys = Table(
    "sealing_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("team", String, nullable=False),
    Column("subject_hash", String, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("team", "subject_hash"),
)

journal_positions = Table(
    "journal_positions",
    metadata,
    Column("segment", String, primary_key=True),
    Column("offset", BigInteger, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("expires_at", Float, nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String, primary_key=True),
    _team(),
    Column("endpoint", String, nullable=False),
    Column("phase", String, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("document", Text, nullable=False),
    Index(None, "endpoint", "started_at"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", String, primary_key=True),
    Column("team", String, nullable=False),
    Column("record_id", String, nullable=False, index=True),
    Column("name", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("value", Float),
    Column("key_id", String, nullable=False),
    Column("subject_hash", String, nullable=False),
    Column("time", Float, nullable=False),
    Column("idempotency_key", String),
    Column("state", String, nullable=False),
    Column("sealing_key", String, nullable=False),
    Column("sealed", LargeBinary),
    UniqueConstraint("team", "idempotency_key"),
    Index(None, "state", "time"),
    Index(None, "team", "time", "id"),
)

cache_purges = Table(
    "cache_purges",
    metadata,
    Column("team", String, primary_key=True, server_default=""),
    Column("endpoint", String, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String, primary_key=True),
    _team(),
    Column("host", String, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("id", String, primary_key=True),
    Column("team", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("filename", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("sealing_key", String, nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),
    Index(None, "team", "id"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String, primary_key=True),
    Column("team", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("status", String, nullable=False, index=True),
    Column("created_at", Float, nullable=False),
    Column("document", Text, nullable=False),
    Index(None, "team", "id"),
)
