"""From light to bytes: exposure, a filmic shoulder, the display's curve."""

import numpy as np
import numpy.typing as npt

from peer.workers.rays.dice import F32


def develop(light: F32, exposure: float) -> npt.NDArray[np.uint8]:
    """Display bytes of linear light. The shoulder is K. Narkowicz's fit of the ACES curve; the display's curve is a sum of
    square roots (C. Taylor's approximation of sRGB), for powers are not exactly rounded.
    """
    x: F32 = np.where(light > 0, light, np.float32(0)) * np.float32(exposure)
    x = x * (x * np.float32(2.51) + np.float32(0.03)) / (x * (x * np.float32(2.43) + np.float32(0.59)) + np.float32(0.14))
    x = np.minimum(x, 1)
    once = np.sqrt(x)
    twice = np.sqrt(once)
    thrice = np.sqrt(twice)
    curve = np.float32(0.662002687) * once + np.float32(0.684122060) * twice - np.float32(0.323583601) * thrice
    shown = np.minimum(np.maximum(curve - np.float32(0.0225411470) * x, 0), 1)
    levels: npt.NDArray[np.uint8] = np.floor(shown * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return levels
