"""Draws the pictures of docs/performance.md from the last lines that the benches print.

`python -m bench.draw saving RESULT.json PICTURE.png`; also `restoring` and `recovering`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

OURS, PEER = "#1f77b4", "#b0b7bf"
PANELS: dict[str, Sequence[tuple[str, str]]] = {
    "saving": (
        ("stall_ms", "stall of a save (ms)"),
        ("lost_ms", "training time lost until durable (ms)"),
        ("client_cpu_s", "CPU of a save (s)"),
    ),
    "restoring": (
        ("restore_s", "restore (s)"),
        ("client_cpu_s", "CPU of a restore (s)"),
    ),
    "recovering": (
        ("p50_s", "killed worker to next step, median (s)"),
        ("p99_s", "99th percentile (s)"),
    ),
}


def panel(axis: Axes, results: dict[str, dict[str, Any]], key: str, title: str) -> None:
    """Horizontal bars, one for each contestant, with their values beside them."""
    names = [name for name in reversed(results) if results[name].get(key) is not None]
    values = [results[name][key] for name in names]
    colors = [OURS if name.startswith("headway") else PEER for name in names]
    axis.bar_label(axis.barh(names, values, color=colors), fmt="%g", padding=3, fontsize=8)
    axis.set_xlim(right=1.25 * max(values))
    axis.set_title(title, fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def main() -> None:
    kind, source, target = sys.argv[1:]
    results = json.loads(Path(source).read_text().splitlines()[-1])
    panels = PANELS[kind]
    height = 0.8 + 0.32 * len(results)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4 * len(panels), height), sharey=True, layout="constrained"
    )
    for axis, each in zip(axes, panels, strict=True):
        panel(axis, results, *each)
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main()
