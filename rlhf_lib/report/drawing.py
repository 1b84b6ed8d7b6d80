"""Panels as SVG whose colours are CSS variables, and as PNG. The same panels give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rlhf_lib.common.policies import POLICIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# (on light, on dark) of everything that is drawn
PALETTE = {
    "ink": ("#1f2328", "#e6e8eb"),
    "muted": ("#626a73", "#9aa4af"),
    "line": ("#d5dae0", "#3a424c"),
    **{name: policy.colours for name, policy in POLICIES.items()},
    "best_of_n": ("#009e73", "#2fc79b"),
    "attainable": ("#3a4a5e", "#c3cedb"),
    "chosen": ("#cc79a7", "#e39cc5"),
    "reward": ("#d55e00", "#ff8b3d"),  # PPO's, which learns from it
    "judge": ("#7b4ea3", "#c19be6"),
    "gold": ("#b38600", "#f0c437"),
}
COLOURS = {name: light for name, (light, _) in PALETTE.items()}
MARKERS = {name: policy.marker for name, policy in POLICIES.items()}
MARKERS |= {"best_of_n": "D", "chosen": "X", "reward": "s", "judge": "o", "gold": "D"}
SIGNS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "X": "✖", "v": "▼", "P": "✚", "*": "★"}  # the markers as text
STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "lines.linewidth": 1.4,
    "errorbar.capsize": 2.0,
    "legend.frameon": False,
}
# inches: of a panel where two, three or four stand side by side
DOUBLE, WIDE, NARROW = (5.6, 3.2), (4.0, 2.9), (3.1, 2.5)


def mark(kind: str, label: str) -> dict[str, Any]:
    """How a point of a kind is drawn."""
    return {"fmt": MARKERS[kind], "color": COLOURS[kind], "label": label, "markersize": 5, "elinewidth": 1.2}


@dataclass(frozen=True)
class Panel:
    """One small picture: what it shows in words (for those who do not see it), and the function that draws it."""

    name: str
    title: str
    description: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = WIDE


def svg(panel: Panel) -> Markup:
    """The panel, less its title, as an <svg> for a page with a CSS variable --<name> for each name of `PALETTE`."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**STYLE, "svg.hashsalt": panel.name}):  # ids of its own: those of one page must differ
        figure = Figure(figsize=panel.size, layout="constrained")
        panel.draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Markup(_inline(buffer.getvalue(), panel))


def _inline(text: str, panel: Panel) -> str:
    """matplotlib's file as an element of a page: colours by variable, the page's font, no size of its own."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None
    label = escape(f"{panel.title}. {panel.description}")
    text = re.sub(r"<svg.*?>", f'<svg {view[0]} role="img" aria-label="{label}">', text, count=1, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", text).strip()


def png(panels: Sequence[Panel], columns: int, path: Path) -> None:
    """The panels beside one another, with one legend, as a PNG file."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    with rc_context({**STYLE, "figure.facecolor": "white"}):
        width, height = panels[0].size
        figure = Figure(figsize=(width * columns, height * rows + 0.35), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for panel, ax in zip(panels, axes, strict=False):
            panel.draw(ax)
            ax.set_title(panel.title)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        handles = {label: h for ax in figure.axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=len(handles))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it may be a link into DVC's cache
        figure.savefig(path, dpi=130, metadata={"Software": None})
