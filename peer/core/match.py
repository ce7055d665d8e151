"""The name of a deal: the id of the match that both sides signed."""

from orderbook.core.messages import SignedMatch
from wire.canon import pack
from wire.digest import context, digest
from wire.network import Network


def match_id(network: Network, signed: SignedMatch) -> bytes:
    """32 bytes naming the deal that ``signed`` begins; the same for buyer and seller."""
    return digest(context(network.name, "deal"), pack(signed.match))
