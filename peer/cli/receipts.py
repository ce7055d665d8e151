"""``bitwrk receipts``: the evidence of own units, shown, exported, and verified by anybody. Needs no running node."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from peer.cli.options import HomeOption, JsonOption, show
from peer.config import home_folder
from wire.errors import LocalFault, Refused
from wire.limits import CONTENT_MAX_BYTES, EVIDENCE_CIPHER_MAX_BYTES, EVIDENCE_MAX_BYTES
from wire.money import show_msat

_PREFIX_CHARS: Final = 16
_PREFIX_LEAST: Final = 6


def _kept(home: Path | None) -> dict[bytes, Any]:
    """Own bundles by unit. A node may be running in the home, or none."""
    from peer.core.bundle import Bundle
    from peer.core.logbook import RECEIPT_TABLE
    from peer.home import Home
    from peer.journal import read_rows

    path = Home.at(home_folder(home)).journal_path
    if not path.exists():
        raise LocalFault("no-journal", f"no node has run in {path.parent} yet, so there are no receipts")
    return {key: Bundle.read(raw) for key, raw in sorted(read_rows(path, RECEIPT_TABLE).items())}


def name_of(bundle: Any) -> str:
    """What people call a bundle: the beginning of its deal, and its unit."""
    return f"{bundle.offer.deal.hex()[:_PREFIX_CHARS]}.{bundle.offer.unit}"


def _state(bundle: Any) -> str:
    if bundle.receipt is None:
        return "key given, no receipt"
    return "signed by the buyer" if bundle.receipt.seller_signature is None else "signed by both"


def _line(bundle: Any) -> dict[str, Any]:
    from wire.account import account_of

    return {
        "id": name_of(bundle),
        "article": bundle.article,
        "buyer": account_of(bundle.match.buyer),
        "seller": account_of(bundle.match.seller),
        "price": show_msat(bundle.offer.price_msat),
        "line": None if bundle.receipt is None else bundle.receipt.body.number,
        "state": _state(bundle),
    }


def _add_ids(bundle: Any, line: dict[str, Any]) -> dict[str, Any]:
    ids = {name: getattr(bundle.offer, name).hex() for name in ("deal", "work", "plain", "cipher")}
    return {**line, **ids, "unit": bundle.offer.unit, "price_msat": bundle.offer.price_msat}


def receipts_list(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Units that this home has evidence of, bought and sold."""
    bundles = _kept(home).values()
    show([_add_ids(one, _line(one)) if as_json else _line(one) for one in bundles], as_json, "no receipts")


def _chosen(bundles: dict[bytes, Any], name: str) -> list[Any]:
    deal, _, unit = name.partition(".")
    if len(deal) < _PREFIX_LEAST or (unit and not unit.isdecimal()):
        raise typer.BadParameter(f"{name!r} is no id of a receipt; bitwrk receipts list shows them", param_hint="ID")
    found = [one for one in bundles.values() if one.offer.deal.hex().startswith(deal) and unit in ("", str(one.offer.unit))]
    if not found:
        raise Refused("unknown-receipt", f"there is no receipt {name}; bitwrk receipts list shows those that are here")
    if len({one.offer.deal for one in found}) > 1:
        raise Refused("unknown-receipt", f"more than one deal begins with {deal}; give more of its id")
    return found


def _with_ciphertext(home: Path | None, bundle: Any) -> Any:
    """The bundle with the ciphertext, from the store of the running node."""
    import dataclasses
    import io

    from peer.client import LocalNode

    sink = io.BytesIO()
    with LocalNode.at(home_folder(home)) as node:
        node.fetch(bundle.offer.cipher.hex(), sink)
    if len(sink.getvalue()) > EVIDENCE_CIPHER_MAX_BYTES:
        raise Refused("too-large", f"a ciphertext in evidence has at most {EVIDENCE_CIPHER_MAX_BYTES >> 10} KiB; leave it out")
    return dataclasses.replace(bundle, cipher=sink.getvalue())


def receipts_export(
    name: Annotated[str, typer.Argument(metavar="ID", help="As receipts list shows it; without the unit: all of its deal.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the files.")] = Path(),
    ciphertext: Annotated[
        bool, typer.Option("--ciphertext", help="Put the ciphertext in, so that others can see what the key opens.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write evidence into files that anybody can verify."""
    from peer.core.bundle import SUFFIX
    from wire.canon import pack

    written = []
    for bundle in _chosen(_kept(home), name):
        path = out / f"{name_of(bundle)}{SUFFIX}"
        raw = pack(_with_ciphertext(home, bundle) if ciphertext else bundle)
        try:
            path.write_bytes(raw)
        except OSError as error:
            raise LocalFault("bad-file", f"{path} cannot be written: {(error.strerror or 'unknown').lower()}") from None
        written.append({"id": name_of(bundle), "file": str(path), "bytes": len(raw)})
    show(written, as_json)


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a file of at most ``most``. Raises ``LocalFault``."""
    try:
        with path.open("rb") as source:
            raw = source.read(most + 1)
    except OSError as error:
        raise LocalFault("bad-file", f"{path} cannot be read: {(error.strerror or 'unknown').lower()}") from None
    if len(raw) > most:
        raise LocalFault("bad-file", f"{path} is larger than the {most} bytes that it may have")
    return raw


def receipts_verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files of evidence; several of one deal: also its log.")],
    work: Annotated[Path | None, typer.Option("--work", metavar="FILE", help="The work, to compare.")] = None,
    result: Annotated[Path | None, typer.Option("--result", metavar="FILE", help="The result, to compare.")] = None,
    at_chain: Annotated[
        str | None, typer.Option("--at-chain", metavar="URL", help="A chain's RPC, such as http://user:password@host:port.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify evidence. Needs no node, no home and, unless a chain is to be asked, no network."""
    from peer.core.bundle import Bundle, check, check_log

    bundles = [Bundle.read(read_file(path, EVIDENCE_MAX_BYTES)) for path in files]
    findings: list[dict[str, str]] = []
    for path, bundle in zip(files, bundles, strict=True):
        found = [*check(bundle)]
        found += _compared(bundle, work, result)
        if at_chain is not None:
            found += _on_chain(bundle, at_chain)
        findings += [{"file": str(path), "step": one.step, "shows": one.sentence} for one in found]
    if len(bundles) > 1:
        findings += [{"file": "-", "step": one.step, "shows": one.sentence} for one in check_log(bundles)]
    show(findings, as_json)


def _compared(bundle: Any, work: Path | None, result: Path | None) -> list[Any]:
    from peer.core.bundle import Finding, NotProven, content_of

    found = []
    for path, what, wanted in ((work, "work", bundle.offer.work), (result, "result", bundle.offer.plain)):
        if path is None:
            continue
        if content_of(read_file(path, CONTENT_MAX_BYTES)) != wanted:
            raise NotProven(f"other-{what}", f"{path} is not the {what} that this evidence is about")
        found.append(Finding(step=what, sentence=f"{path} is the {what}"))
    return found


def _on_chain(bundle: Any, url: str) -> list[Any]:
    import trio

    return trio.run(_look, bundle, f"core:{url}" if url.startswith("http") else url)


async def _look(bundle: Any, url: str) -> list[Any]:
    """What the chain says about the escrow."""
    from escrow.core.transaction import read_outpoint
    from escrow.shell.checked import CheckedChain
    from peer.config import read_chain
    from peer.core.bundle import Finding, NotProven, contract_in, network_of
    from peer.node.money import open_far

    contract = contract_in(bundle)
    if contract is None:
        return []
    network = network_of(bundle)
    async with open_far(read_chain(url), network) as far:
        chain = CheckedChain(far, network)
        if await chain.instance() != contract.terms.instance:
            raise NotProven("other-chain", "this evidence is about a channel on another chain")
        outpoint = read_outpoint(bundle.channel.funding)
        found = await chain.outpoint(outpoint)
    if found is None:
        raise NotProven("no-escrow", "this chain does not know the escrow, or not any more")
    if (found.value_sat, found.script) != (contract.funding.value_sat, contract.funding.script):
        raise NotProven("wrong-escrow", "the output on the chain is not the escrow that both signed")
    state = "unspent" if found.spent_by is None else "spent"
    where = "waits for its block" if found.height is None else f"is in block {found.height}"
    return [Finding(step="chain", sentence=f"the escrow of {found.value_sat} sat {where} and is {state}")]


def add_receipts(app: typer.Typer) -> None:
    """Add the group to the command line."""
    group = typer.Typer(help="Evidence of units: list, export, verify.", no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(receipts_list)
    group.command("export")(receipts_export)
    group.command("verify")(receipts_verify)
    app.add_typer(group, name="receipts")
