"""Any function of an image as augmentation: seeded for each image and epoch, its result checked."""

import contextlib
import inspect
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

_global_state = threading.Lock()  # of Python's, numpy's and torch's generators: one image at a time


class FunctionPolicy:
    """What `load` needs of an `augment.Policy`, around a function from one image to another; see `load`."""

    mixes = moves = False

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.by_keyword = type(function).__module__.split(".")[0].startswith("albument")
        takes: Mapping[str, inspect.Parameter] = {}
        with contextlib.suppress(TypeError, ValueError):  # of functions in C
            takes = inspect.signature(function).parameters
        self.takes_seed = "seed" in takes
        self.by_keyword |= "image" in takes and takes["image"].kind is inspect.Parameter.KEYWORD_ONLY

    def __repr__(self) -> str:
        return f"FunctionPolicy({self.function!r})"

    def sample(self, rows: np.ndarray, *, seed: int, epoch: int, repeats: np.ndarray) -> dict[str, np.ndarray]:
        """A seed for each image; it depends on (`seed`, `epoch`, row, repeat) alone."""
        pairs = zip(rows.tolist(), repeats.tolist(), strict=True)
        seeds = [np.random.SeedSequence([seed % 2**63, epoch, *pair]).generate_state(1)[0] for pair in pairs]
        return {"seed": np.array(seeds, dtype=np.int64)}

    def transform(self, sampled: dict[str, np.ndarray], image_size: tuple[int, int]) -> Callable[..., None]:
        """What writes one image after the other."""

        def write(index: int, image: np.ndarray, out: np.ndarray) -> None:
            np.copyto(out, self.changed(image, int(sampled["seed"][index])))

        return write

    def changed(self, image: np.ndarray, seed: int) -> np.ndarray:
        """The image as the function changes it for this seed."""
        image = image.copy()  # the function may write into it, and the cache keeps the original
        if self.takes_seed:
            result = self.function(image=image, seed=seed) if self.by_keyword else self.function(image, seed=seed)
        else:
            with _seeded(seed, self.function):
                result = self.function(image=image) if self.by_keyword else self.function(image)
        if isinstance(result, dict):
            result = result.get("image")
        result = np.asarray(result)
        if result.dtype != np.uint8 or result.shape != image.shape:
            raise TypeError(
                f"`augment` expects a function from a uint8 image of shape {image.shape}, 0-255, to one of the same "
                f"type and shape. {self.function!r} returned {result.dtype} of shape {result.shape}."
            )
        return result


@contextlib.contextmanager
def _seeded(seed: int, function: Any) -> Iterator[None]:
    """Seeds the generators that a function may use without asking, and gives them their state back."""
    torch = sys.modules.get("torch")
    with _global_state:
        state, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002  (what functions of a person use)
        tensors = torch.random.get_rng_state() if torch is not None else None
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        if torch is not None:
            torch.random.manual_seed(seed)
        if hasattr(function, "set_random_seed"):  # albumentations has generators of its own
            function.set_random_seed(seed)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numbers)  # noqa: NPY002
            if torch is not None:
                torch.random.set_rng_state(tensors)
