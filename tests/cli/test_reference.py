"""The reference documents name every route, refusal, command, option and setting, and nothing that is not there."""

import re
from pathlib import Path

import trio
import typer
import typer.main

from peer.api.routes import make_app
from peer.api.service import STATUS
from peer.cli.app import app
from peer.config import API_PORT, TABLE
from peer.home import API_FILE, KEY_FILE, LOCK_FILE, TOKEN_FILE
from tests.api.node import FakeNode
from wire import limits

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def commands() -> dict[str, set[str]]:
    """Every command with its options, arguments left out. A group that does something by itself is one too."""
    found: dict[str, set[str]] = {}

    def walk(command: object, path: str) -> None:
        inner = getattr(command, "commands", None)
        for name, one in (inner or {}).items():
            walk(one, f"{path} {name}")
        if inner is None or command.invoke_without_command:  # type: ignore[attr-defined]
            options = {name for parameter in command.params for name in parameter.opts if name.startswith("-")}  # type: ignore[attr-defined]
            found[path] = options

    walk(typer.main.get_command(app), "bitwrk")
    return found


def test_every_route_is_in_the_reference_and_no_other() -> None:
    routes = {
        (method, route.path.replace(":path", ""))  # type: ignore[attr-defined]
        for route in make_app(FakeNode(), trio.Event()).routes
        for method in set(getattr(route, "methods", ())) - {"HEAD"}
    }
    named = set(re.findall(r"`(GET|POST|PUT|DELETE) (/[^`]*)`", page("local-api.md")))
    assert named == routes


def test_every_refusal_is_in_the_reference_with_its_status() -> None:
    text = page("local-api.md")
    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", text, re.MULTILINE)
    named = {code: int(status) for status, codes in rows for code in re.findall(r"`([a-z-]+)`", codes)}
    for extra in ("internal-error", "disk-full"):
        assert named.pop(extra) == 500
    assert named == STATUS


def test_the_bounds_in_the_reference_are_the_real_ones() -> None:
    text = page("local-api.md")
    for sentence in (
        f"over {limits.BODY_MAX_BYTES >> 20} MiB",
        f"stalls for {limits.API_BODY_IDLE_S} s",
        f"at most {limits.API_WAIT_MAX_S:,}. Default {limits.API_WAIT_DEFAULT_S}.",
        f"At most {limits.API_REQUESTS_MAX:,} requests",
        f"At most {limits.API_CONNECTIONS_MAX:,} connections",
        f"every {limits.API_HEARTBEAT_S} s",
        f"port {API_PORT}",
        f"1 to {limits.DEPTH_LEVELS_MAX}, default",
        f"1 to {limits.TAPE_SLOTS_MAX} (the default)",
        f"the latest {limits.TAPE_SLOTS_MAX} slots are kept",
        f"the {limits.TAPE_BOOKS_MAX} books that traded last",
        f"the latest {limits.TAPE_EPOCHS_MAX} auctions",
        f"written every {limits.TAPE_WRITE_S} s",
    ):
        assert sentence in text, sentence


def test_every_command_has_its_section_and_no_other() -> None:
    titles = re.findall(r"^### `(bitwrk [^`]*)`$", page("commands.md"), re.MULTILINE)
    sections = {" ".join(word for word in title.split() if word.islower()) for title in titles}
    assert sections == set(commands())


def test_every_option_is_in_the_reference_and_no_other() -> None:
    real = {option for options in commands().values() for option in options}
    named = set(re.findall(r"`(-{1,2}[a-z][a-z-]*)[ `]", page("commands.md")))
    assert named - {"--version", "--help"} == real - {"--help"}


def test_every_setting_is_in_the_reference_with_its_option_and_no_other() -> None:
    rows = re.findall(
        r"^\| `([a-z_]+)` \| (?:`(--[a-z-]+)`|–) \|", page("configuration.md").partition("## Offers")[0], re.MULTILINE
    )
    assert {(name, option or None) for name, option in rows} == {(setting.name, setting.option) for setting in TABLE}


def test_every_file_of_the_home_is_in_the_reference() -> None:
    for name in (KEY_FILE, TOKEN_FILE, API_FILE, LOCK_FILE, "journal.sqlite", "tape.sqlite", "config.toml"):
        assert f"| `{name}` |" in page("configuration.md")


def test_node_and_sell_have_an_option_for_every_setting_that_has_one() -> None:
    wanted = {setting.option for setting in TABLE if setting.option}
    for name in ("bitwrk node", "bitwrk sell"):
        assert wanted <= commands()[name]
