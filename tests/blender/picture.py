"""A picture whose every pixel can be computed again."""

import numpy as np

from peer.workers.blender.pixels import Pixels


def picture(layer: str, width: int, height: int, frame: int) -> tuple[Pixels, tuple[str, ...]]:
    """Pixels and channels of a whole frame."""
    across, down = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    values = np.stack([np.ones_like(across), across * 0.25 + frame, down / 3, across * down / 7]).astype(np.float32)
    return values, tuple(f"{layer}.Combined.{one}" for one in "ABGR")
