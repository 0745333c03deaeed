"""Sliders for what may happen to an image."""

import html
from typing import Any

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from cnnlab import augment, plots
from cnnlab._common import require_columns
from cnnlab.widgets.exploring import Explorer

# name: the most that a slider offers, and its step; more may be typed into a Policy.
SLIDERS = {
    "rotate": (180.0, 1.0),
    "zoom": (0.5, 0.01),
    "shift": (0.3, 0.01),
    "shear": (30.0, 1.0),
    "brightness": (0.6, 0.02),
    "contrast": (0.8, 0.05),
    "saturation": (1.0, 0.05),
    "blur": (4.0, 0.1),
    "noise": (40.0, 1.0),
    "erase": (0.5, 0.02),
}
FLIPS = (None, "horizontal", "vertical", "both")
COLUMNS = 6


def policy_sliders(
    table: pd.DataFrame, policy: augment.Policy | None = None, *, row: int = 0, size: int = 96
) -> "PolicySliders":
    """Shows an image under a policy, with a slider for each operation and the policy as code to copy.

    Args:
        table: With the columns path and label.
        policy: Where the sliders stand at first; doing nothing where None.
        row: Which image of the table, counted from 0; can be changed in the view.
        size: Side of the images in pixels.

    Returns:
        The view: leave it on a cell's last line. Its `policy` is what the sliders say. Where widgets do not run, the
        picture of the policy stands in its place.

    Raises:
        ValueError: If the table has no such row.

    Example:
        >>> import tempfile
        >>> from cnnlab import augment, samples, tables, widgets
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=1, size=32))
        ...     view = widgets.policy_sliders(table, augment.Policy(rotate=10), size=32)
        ...     view.sliders["noise"].value = 4
        ...     view.policy
        Policy(rotate=10.0, noise=4.0)
    """
    require_columns(table, "path", "label", caller="widgets.policy_sliders")
    if not 0 <= row < len(table):
        raise ValueError(f"`row` must be from 0 to {len(table) - 1}, the rows of the table. Received: row={row}.")
    return PolicySliders(table, policy or augment.Policy(), row, size)


class PolicySliders(Explorer):
    """What `policy_sliders` returns."""

    def __init__(self, table: pd.DataFrame, policy: augment.Policy, row: int, size: int) -> None:
        self.table, self.size = table, size
        others = {name: value for name, value in policy.settings.items() if name not in (*SLIDERS, "flip")}
        self.rest = augment.Policy(**others)
        self.flip = ipywidgets.Dropdown(
            options=[(str(name or "none"), name) for name in FLIPS], value=policy.flip, description="flip"
        )
        self.sliders = {
            name: ipywidgets.FloatSlider(
                min=0,
                max=max(most, getattr(policy, name)),
                value=getattr(policy, name),
                step=step,
                description=name,
                continuous_update=False,
            )
            for name, (most, step) in SLIDERS.items()
        }
        self.row = ipywidgets.BoundedIntText(min=0, max=len(table) - 1, value=row, description="image")
        controls = [self.row, self.flip, *self.sliders.values()]
        super().__init__(controls, ipywidgets.GridBox(controls, layout={"grid_template_columns": "repeat(3, 21em)"}))

    @property
    def policy(self) -> augment.Policy:
        """The policy that the controls describe."""
        values: dict[str, Any] = {name: slider.value for name, slider in self.sliders.items() if slider.value}
        return augment.Policy(flip=self.flip.value, **values) | self.rest

    def words(self) -> str:
        """The policy as code."""
        return f"<code>policy = augment.{html.escape(repr(self.policy))}</code>"

    def figure(self) -> Figure:
        """The image under the policy, and under each operation alone."""
        figure = Figure((1.35 * COLUMNS, 1.5 * (1 + len(self.policy.operations))), layout="constrained")
        look = {"row": self.row.value, "columns": COLUMNS, "size": self.size}
        plots.augmentations(self.table, self.policy, **look, ax=figure.subplots())
        return figure
