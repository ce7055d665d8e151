"""Figures, small and plain. The only door to matplotlib, which is imported when the first one is drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wire.errors import Refused

_POINTS: Final = 400
_COLOURS: Final = ("#1b6ca8", "#d1495b", "#2e933c", "#edae49", "#6a4c93", "#5c5c5c")


def _axes(title: str, across: str, up: str) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise Refused("no-matplotlib", "figures need matplotlib; `make sim` installs it, or run without --out") from None
    figure = Figure(figsize=(7.2, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Software": None})


def shares(
    curves: Mapping[str, NDArray[Any]], path: Path, *, title: str, across: str, marks: Mapping[str, float] | None = None
) -> None:
    """Cumulative shares of measured values, with p50 and p99 in the legend and published values as dashed lines."""
    figure, axes = _axes(title, across, "share")
    for place, (name, values) in enumerate(curves.items()):
        if not len(values):
            continue
        ordered = np.sort(values)
        picked = np.unique(np.linspace(0, ordered.size - 1, _POINTS).astype(int))
        label = f"{name}: p50 {np.percentile(ordered, 50):,.3g}, p99 {np.percentile(ordered, 99):,.3g}"
        axes.plot(ordered[picked], (picked + 1) / ordered.size, color=_COLOURS[place % len(_COLOURS)], label=label)
    for place, (name, value) in enumerate((marks or {}).items()):
        axes.axvline(value, color=_COLOURS[place % len(_COLOURS)], linestyle="--", linewidth=1, label=f"{name}: {value:,.4g}")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    _save(figure, path)


def counts(curves: Mapping[str, NDArray[Any]], path: Path, *, title: str, across: str) -> None:
    """Cumulative shares of whole numbers, as steps."""
    figure, axes = _axes(title, across, "share of look-ups")
    top = max((int(values.max()) for values in curves.values() if len(values)), default=1)
    for place, (name, values) in enumerate(curves.items()):
        steps = np.arange(top + 2)
        share = [(values <= step).mean() for step in steps]
        style = "-" if place % 2 == 0 else "--"
        axes.step(steps, share, where="post", color=_COLOURS[(place // 2) % len(_COLOURS)], linestyle=style, label=name)
    axes.set_ylim(0, 1.02)
    axes.set_xticks(range(top + 2))
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    _save(figure, path)


def series(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path, *, title: str, across: str, up: str) -> None:
    """Lines over time."""
    figure, axes = _axes(title, across, up)
    for place, (name, (moments, values)) in enumerate(lines.items()):
        axes.plot(moments, values, color=_COLOURS[place % len(_COLOURS)], linewidth=1.3, label=name)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def bars(groups: Mapping[str, tuple[float, float]], path: Path, *, title: str, up: str) -> None:
    """Means over several runs with their spread (half the 95 % interval)."""
    figure, axes = _axes(title, "", up)
    names = list(groups)
    axes.bar(names, [groups[name][0] for name in names], yerr=[groups[name][1] for name in names], color=_COLOURS[0], width=0.6)
    axes.tick_params(axis="x", labelrotation=30, labelsize=8)
    _save(figure, path)
