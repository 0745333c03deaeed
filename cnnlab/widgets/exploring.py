"""What the views with sliders share: controls above, a picture below that follows them, the picture alone elsewhere."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from cnnlab._common import is_quiet


class Pictured(ipywidgets.DOMWidget):
    """A view for which a picture stands in where widgets do not run; inherit from it first, then from a widget."""

    def static(self) -> bytes:
        """The picture, as PNG; empty where there is none."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)
        bundle: dict[str, Any] = found[0] if isinstance(found, tuple) else found  # anywidget adds metadata for Colab
        picture = self.static()
        if picture:
            bundle["image/png"] = base64.b64encode(picture).decode()
        if picture and is_quiet():  # nobody is there to press a button: the picture alone
            del bundle["application/vnd.jupyter.widget-view+json"]
        return (bundle, found[1]) if isinstance(found, tuple) and found[1] else bundle


class Explorer(Pictured, ipywidgets.VBox):
    """Controls, a line of words and a picture that are drawn anew whenever the `value` of a control changes."""

    def __init__(self, controls: Sequence[ipywidgets.Widget], layout: ipywidgets.Widget | None = None) -> None:
        self._picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        self._words = ipywidgets.HTML()
        super().__init__([layout or ipywidgets.VBox(list(controls)), self._words, self._picture])
        for control in controls:
            control.observe(lambda _: self.draw(), "value")
        self.draw()

    def figure(self) -> Figure:
        """The picture for the controls as they stand."""
        raise NotImplementedError

    def words(self) -> str:
        """The line above the picture, as HTML."""
        return ""

    def draw(self) -> None:
        """Draws words and picture anew."""
        self._words.value = self.words()
        self._picture.value = as_png(self.figure())

    def static(self) -> bytes:
        """The picture as it stands."""
        return bytes(self._picture.value)


def as_png(figure: Figure, dpi: int = 100) -> bytes:
    """A figure as the bytes of a PNG file; made without pyplot, which would keep every one of them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
