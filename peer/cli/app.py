"""The command line as a whole, and the one place where errors become sentences and exit codes.

0 is success, 1 a refusal or a fault told in one sentence on standard error, 2 a command line that makes no sense, 130 an
interruption. A traceback means a mistake in this program and nothing else.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from peer.cli import asking, dashboard, key, running, trying
from peer.cli.bonding import add_bonds
from peer.cli.disputes import add_disputes
from peer.cli.doctor import doctor
from peer.cli.market import add_market
from peer.cli.receipts import add_receipts
from peer.cli.wallet import add_wallet
from peer.config import VERSION
from wire.errors import InvariantBroken, named_in


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bitwrk {VERSION}")
        raise typer.Exit


def _make_app() -> typer.Typer:
    app = typer.Typer(
        name="bitwrk",
        help="A marketplace for computing power with no server.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def common(
        version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
    ) -> None:
        """A marketplace for computing power with no server."""

    app.command()(running.node)
    app.command()(running.sell)
    app.command()(asking.buy)
    for name, purpose, none in asking.LISTINGS:
        app.command(name)(asking.listing(name, purpose, none))
    app.command()(asking.close)
    app.command()(dashboard.tui)
    add_market(app)
    add_receipts(app)
    add_disputes(app)
    add_bonds(app)
    app.command()(doctor)
    keys = typer.Typer(help="The key of this home: show, import, export.", no_args_is_help=True, rich_markup_mode=None)
    keys.command("show")(key.key_show)
    keys.command("import")(key.key_import)
    keys.command("export")(key.key_export)
    app.add_typer(keys, name="key")
    add_wallet(app)
    app.command()(running.devchain)
    app.command()(trying.faucet)
    app.command()(trying.address)
    samples = typer.Typer(help="A small picture to try the market with.", no_args_is_help=True, rich_markup_mode=None)
    samples.command("work")(trying.sample_work)
    samples.command("picture")(trying.sample_picture)
    app.add_typer(samples, name="sample")
    app.command()(running.demo)
    return app


app = _make_app()


def _holds_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_holds_interrupt(one) for one in error.exceptions)
    return isinstance(error, KeyboardInterrupt)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code."""
    try:
        app(arguments, prog_name="bitwrk")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        named = named_in(error)
        if named is not None and not isinstance(named, InvariantBroken):
            typer.echo(f"bitwrk: {named.sentence}", err=True)
            return 1
        if _holds_interrupt(error):
            return 130
        raise
    return 0


def main() -> NoReturn:
    """Entry point of ``bitwrk``."""
    code = run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone; without this the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
