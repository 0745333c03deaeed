"""Weights from files into networks; a file that is missing, damaged or another network's is refused in words."""

import warnings
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab.models import efficientnet_lite
from cnnlab.models.catalogue import IMAGENET_STD, NETWORKS, constructor, weights_file, weights_folder


def load_imagenet(backbone: keras.Model, name: str, *, image_size: tuple[int, int], options: dict[str, Any]) -> None:
    """Loads the ImageNet weights of a network: from its package, Keras's folder of models, or else over the network."""
    if name in efficientnet_lite.VARIANTS:
        efficientnet_lite.load(backbone, name)
        return
    path = weights_folder() / weights_file(name, image_size=image_size, options=options)
    if path.is_file():
        load_file(backbone, path, name=name, options=options)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras: "weights for 224 are loaded"; our documentation says the same
            fetched = constructor(name)(
                include_top=False, weights="imagenet", input_shape=backbone.input_shape[1:], **options
            )
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"`models.pretrained` expects options for which Keras publishes ImageNet weights of {name}. "
            f"Received: {options}. {error} Or pass `weights=None` to train from scratch."
        ) from error
    except Exception as error:  # Keras raises a bare Exception when it cannot fetch
        raise FileNotFoundError(
            f"`models.pretrained` expects the ImageNet weights of {name} in the file {path}, which is not there and "
            f"could not be fetched: {_first_line(error)}. Fetch it on a machine with a network and put it there, or "
            "pass `weights=` its path; `weights=None` trains from scratch; `models.table()` shows in its column "
            "`here` which weights this machine has."
        ) from error
    backbone.set_weights(fetched.get_weights())
    _standardise_efficientnet(backbone, name)


def load_file(backbone: keras.Model, path: str | Path, *, name: str, options: dict[str, Any]) -> None:
    """Loads a weights file, with or without its layer of 1,000 ImageNet classes."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"`models.pretrained` expects `weights` to be 'imagenet', None, or the path of a file with weights of "
            f"{name}. Received {str(path)!r}, which is not there."
        )
    if path.suffix == ".pth" and name in efficientnet_lite.VARIANTS:
        efficientnet_lite.load(backbone, name, path)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns of layers that the file lacks
            backbone.load_weights(path)
    except (ValueError, KeyError, UserWarning) as error:
        if not _load_with_head(backbone, path, name, options):
            given = ", ".join(f"{key}={value}" for key, value in options.items())
            known = [other for other, network in NETWORKS.items() if network.file == path.name]
            hint = f" By its name it is {known[0]}'s." if known else ""
            raise ValueError(
                f"`models.pretrained` expects weights of {name}({given}). {path} holds those of another network.{hint} "
                f"Keras says: {_first_line(error)}. Choose the network, its width (`alpha=`) and its variant that the "
                "file was made for."
            ) from error
    except Exception as error:  # h5py and zipfile raise kinds of their own on a damaged file
        raise ValueError(
            f"`models.pretrained` expects a file of weights (.h5, .weights.h5 or .keras). {path} is damaged or "
            f"something else: {_first_line(error)}. Fetch it again."
        ) from error
    _standardise_efficientnet(backbone, name)


def _load_with_head(backbone: keras.Model, path: Path, name: str, options: dict[str, Any]) -> bool:
    """Takes the backbone's part of a file that holds the layer of 1,000 classes, too; False where it does not."""
    whole = constructor(name)(include_top=True, weights=None, **options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            whole.load_weights(path)
    except (ValueError, KeyError, UserWarning):
        return False
    backbone.set_weights(whole.get_weights()[: len(backbone.weights)])
    return True


def _standardise_efficientnet(backbone: keras.Model, name: str) -> None:
    """Gives EfficientNet the variances of ImageNet's colours, where its file says standard deviations.

    Keras adds one more layer for this with `weights="imagenet"` only: the same file loaded by its path
    would see colours about twice too strong (tensorflow#49930).
    """
    if NETWORKS[name].family != "efficientnet":
        return
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Normalization):
            mean, variance, count = layer.get_weights()
            if np.allclose(variance, IMAGENET_STD, atol=2e-3):
                layer.set_weights([mean, np.square(IMAGENET_STD), count])
                layer.finalize_state()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip().rstrip(".")[:300]
