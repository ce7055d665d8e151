"""What a seller puts up, on the command line or as ``[[sell]]`` in ``config.toml``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wire.errors import Refused
from wire.limits import ARTICLE_MAX_CHARS, PRICE_MAX_MSAT, WORKERS_MAX
from wire.money import parse_msat, show_msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a seller puts up: a worker by name or a ``command`` template, the article it serves (None: the worker's own), the
    price of a unit (None: under mandates), and how many at once. ``blender`` is the program of the worker blender, ``share``
    are folders that a command can read.
    """

    worker: str | None
    article: str | None
    ask_msat: int | None
    slots: int = 1
    command: str | None = None
    blender: Path | None = None
    share: tuple[Path, ...] = ()


_OFFER_KEYS: Final[dict[str, type]] = {
    "worker": str,
    "command": str,
    "article": str,
    "ask": str,
    "slots": int,
    "blender": str,
    "share": list,
}


def read_offer(value: object) -> Offer:
    """The offer in one ``[[sell]]`` table. Raises ``Refused``."""
    if not isinstance(value, dict):
        raise Refused("bad-offer", "each offer is a table: [[sell]]")
    for name, given in value.items():
        if name not in _OFFER_KEYS:
            raise Refused("bad-offer", f"an offer has no {name!r}; known are {', '.join(_OFFER_KEYS)}")
        if type(given) is not _OFFER_KEYS[name]:
            raise Refused("bad-offer", f"{name!r} in an offer takes a {_OFFER_KEYS[name].__name__}")
    share = value.get("share", [])
    if not all(isinstance(one, str) for one in share):
        raise Refused("bad-offer", "'share' in an offer takes a list of folders")
    return check_offer(
        Offer(
            worker=value.get("worker"),
            command=value.get("command"),
            article=value.get("article"),
            ask_msat=parse_msat(value["ask"]) if "ask" in value else None,
            slots=value.get("slots", 1),
            blender=Path(value["blender"]).expanduser() if "blender" in value else None,
            share=tuple(Path(one).expanduser() for one in share),
        )
    )


def check_offer(offer: Offer) -> Offer:
    """``offer`` if it makes sense by itself. Raises ``Refused``."""
    if (offer.worker is None) == (offer.command is None):
        raise Refused("bad-offer", "an offer names a worker or a command, and not both")
    if offer.command is not None and offer.article is None:
        raise Refused("bad-offer", "a command needs the article that it serves")
    if offer.article is not None and not 0 < len(offer.article) <= ARTICLE_MAX_CHARS:
        raise Refused("bad-offer", f"an article has 1 to {ARTICLE_MAX_CHARS} characters")
    if offer.share and offer.command is None:
        raise Refused("bad-offer", "only a command can be shown folders")
    if offer.blender is not None and offer.worker != "blender":
        raise Refused("bad-offer", "the path of Blender belongs to the worker blender")
    if offer.ask_msat is not None and offer.ask_msat > PRICE_MAX_MSAT:
        raise Refused("bad-offer", f"a unit costs at most {show_msat(PRICE_MAX_MSAT)}")
    if not 1 <= offer.slots <= WORKERS_MAX:
        raise Refused("bad-offer", f"an offer has 1 to {WORKERS_MAX} slots")
    return offer
