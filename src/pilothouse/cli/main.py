"""
The entry point: which command is in which module, and how a command ends.

No command is here, and none is imported before it is asked for: `--help` and
completion must be instant. Every error becomes one line and an exit status.
"""

import importlib
import json
import os
import sys
from collections.abc import Sequence

import click

from pilothouse import __version__
from pilothouse.domain.errors import (
    Conflict,
    InvalidApiKey,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    PilothouseError,
    ServerUnreachable,
)

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("pilothouse.cli.up:up", "Start the server of a home, and say when it is ready."),
    "down": ("pilothouse.cli.down:down", "Stop the server of a home, engines included."),
    "restart": ("pilothouse.cli.restart:restart", "Replace all processes without an interruption."),
    "status": ("pilothouse.cli.status:status", "What runs, how it is, and why."),
    "chat": ("pilothouse.cli.chat:chat", "Talk to an endpoint in the terminal."),
    "apply": ("pilothouse.cli.apply:apply", "Declare what runs, from a file; shows what changes."),
    "diff": ("pilothouse.cli.apply:diff", "How a file differs from what runs."),
    "get": ("pilothouse.cli.get:get", "List things, or show one: records, replicas, keys and more."),
    "describe": ("pilothouse.cli.describe:describe", "One thing, its parts, and what happened to it."),
    "spec": ("pilothouse.cli.spec:spec", "Print what runs, as a spec file."),
    "delete": ("pilothouse.cli.edit:delete", "Take a model, deployment or endpoint out of what is declared."),
    "scale": ("pilothouse.cli.edit:scale", "Declare another number of replicas."),
    "rollout": ("pilothouse.cli.rollout:rollout", "Let a new version in; it rolls itself back when worse."),
    "logs": ("pilothouse.cli.logs:logs", "Show the log of a replica or a process."),
    "import": ("pilothouse.cli.imports:imports", "Take over a LiteLLM, Ollama or KServe configuration."),
    "model": ("pilothouse.cli.models:model", "Pull, list, verify and remove models."),
    "engine": ("pilothouse.cli.engines:engine", "Which engines are here, and which could be."),
    "key": ("pilothouse.cli.keys:key", "Create, list, rotate and revoke API keys."),
    "team": ("pilothouse.cli.keys:team", "Create and list teams."),
    "role": ("pilothouse.cli.keys:role", "Which roles there are, and what they may do."),
    "secret": ("pilothouse.cli.secrets:secret", "Set, list and remove the secrets of providers."),
    "usage": ("pilothouse.cli.usage:usage", "Who used how much."),
    "plan": ("pilothouse.cli.plan:plan", "What a model needs, whether it fits here, what it costs where."),
    "simulate": ("pilothouse.cli.simulate:simulate", "Try traffic and failures on virtual replicas."),
    "cache": ("pilothouse.cli.cache:cache", "End cached answers; calibrate the semantic cache."),
    "bench": ("pilothouse.cli.bench:bench", "Load test: percentiles, time to first token, goodput."),
    "doctor": ("pilothouse.cli.doctor:doctor", "Find what is wrong with this machine, with the fix."),
    "backup": ("pilothouse.cli.backup:backup", "Write state and keys to two files, apart."),
    "restore": ("pilothouse.cli.backup:restore", "Put a backup back into an empty home."),
    "store": ("pilothouse.cli.store:store", "Copy the database: from SQLite to PostgreSQL, and back."),
    "version": ("pilothouse.cli.version:version", "Print the version."),
}
"""Name -> (module:function, help). The help stands here so that listing imports nothing."""

EXIT_STATUS: dict[type[PilothouseError], int] = {
    InvalidRequest: 2,
    ServerUnreachable: 3,
    InvalidApiKey: 4,
    PermissionDenied: 4,
    NotFound: 5,
    Conflict: 6,
}
"""Every other error is 1: the operation failed."""


class LazyGroup(click.Group):
    """Finds its commands by name when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="pilothouse")
def cli() -> None:
    """
    The control room for generative AI in production.

    \b
    Example: from nothing to an answer
      pilothouse up
      pilothouse chat smollm2 "Why is the sky blue?"

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 no server reachable, 4 refused,
    5 not found, 6 conflict.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command line; ends by SystemExit."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = cli.main(args=arguments, prog_name="pilothouse", standalone_mode=False)
    except PilothouseError as exc:
        status = _fail(arguments, exc.message, code=exc.code, status=exit_status(exc))
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        status = 2
    except click.ClickException as exc:
        context = getattr(exc, "ctx", None)
        where = context.command_path if context else "pilothouse"
        text = f"{exc.format_message().rstrip('.')}. fix: see {where} --help"
        status = _fail(arguments, text, code="usage", status=exc.exit_code)
    except (KeyboardInterrupt, click.Abort):
        status = 130
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`): nothing is wrong, and nobody can be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 141
    sys.exit(status if isinstance(status, int) else 0)


def exit_status(error: PilothouseError) -> int:
    return next((status for kind, status in EXIT_STATUS.items() if isinstance(error, kind)), 1)


def _fail(arguments: Sequence[str], message: str, *, code: str, status: int) -> int:
    if "--json" in arguments:
        click.echo(json.dumps({"error": {"code": code, "message": message}}), err=True)
    else:
        click.echo(f"error: {message}", err=True)
    return status
