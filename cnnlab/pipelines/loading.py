"""`load`: a table becomes a batched `tf.data.Dataset`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from cnnlab._common import evenly_spaced, is_number, is_whole, require_columns, require_seed
from cnnlab.images import Preparation, read_file
from cnnlab.images.decoding import declared_size
from cnnlab.images.levels import levels_of
from cnnlab.images.sizing import Resize
from cnnlab.pipelines import cache as caches
from cnnlab.pipelines.functions import FunctionPolicy
from cnnlab.pipelines.source import BatchSource

if TYPE_CHECKING:
    import tensorflow as tf

logger = logging.getLogger("cnnlab")
_trained: dict[tuple[tuple[str, ...], tuple[int, int]], set[Preparation]] = {}
_levels_said: set[tuple[float, float]] = set()
SAMPLE = 48  # files whose headers tell how much memory all of them would take


def load(
    table: pd.DataFrame,
    *,
    image_size: tuple[int, int] | None = None,
    like: Any = None,
    batch_size: int = 32,
    training: bool = False,
    augment: Any = None,
    seed: int | None = None,
    cache: caches.Kind = "auto",
    balance: Literal["oversample", "undersample"] | float | None = None,
    resize: Resize | None = None,
    levels: tuple[float, float] | None = None,
    one_hot: bool = False,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Turns a table into batches of images and labels, as `model.fit`, `evaluate` and `predict` take them.

    Files are read as `images.read` does, brought to one size, and stay uint8, 0-255: rescaling belongs into the model.
    In training every pass is another epoch, with another order and augmentation, which depend on `seed` and the number
    of the epoch alone; else the order is the table's. `len(dataset)` is the exact number of batches. A file that cannot
    be read is left out of its batch, and `broken(dataset)` lists it; for a batch of such files the next readable image
    stands in. Batches are made in parallel, each on one thread: OpenCV is set to one thread in this process.

    Args:
        table: One row per image with `path` and a categorical `label`; labels become the numbers of their categories.
        image_size: Height and width of the images; or, instead,
        like: The model that is to see them: size, channels, resize mode and levels are those that it was made for
            (`models.preparation(model)`, which may be given itself).
        batch_size: Images in a batch; the last one may have fewer.
        training: Whether to shuffle; a must for `augment` and `balance`.
        augment: An `augment.Policy`; or any function from one uint8 RGB image (height, width, 3) at the target size to
            another, such as an albumentations transform. If it takes `seed=`, it is given one for each image and
            epoch; else the generators of Python, numpy and torch are seeded around each call, one image at a time.
        seed: Decides order and augmentation; by default from `random`, which `keras.utils.set_random_seed` sets.
        cache: Where decoded images are kept for later epochs. `"memory"`; `"disk"`, in $CNNLAB_CACHE or the user's
            cache folder, shared by all datasets; `"auto"`, in memory if they fit a quarter of what is free; or False.
        balance: `"oversample"` repeats images of rarer classes in an epoch until all classes count alike;
            `"undersample"` shows as many of each class as the rarest has, others every epoch; a number from 0 to 1
            oversamples until each class has that share of the largest.
        resize: `"fit"`, the default, cuts off equally on both sides what does not fit; `"pad"` adds black bars;
            `"stretch"` distorts. Where it matters what is at the edge, take one of the latter.
        levels: For images of more than 8 bits: the levels that become black and white, such as (0, 4095).
        one_hot: Whether labels are one-hot, float32, of shape (batch, classes); so they are with `mixup` and `cutmix`.
        shard: (index, count) gives worker `index` of `count` its share of the rows, in training as many for each.

    Returns:
        Batches of (uint8 images of shape (batch, height, width, channels), int32 labels of shape (batch,)), with 3
        channels, or 1 where `like` is a network for grey images.

    Raises:
        TypeError: If `table` is not a table, or its `label` is not categorical.
        ValueError: If an argument is outside its range, or does not go with another.
        FileNotFoundError: If none of the first files exist.
    """
    _require_rows(table)
    _require_arguments(batch_size, training, augment, seed, balance, cache, shard)
    policy = FunctionPolicy(augment) if augment is not None and not hasattr(augment, "transform") else augment
    preparation = _with_levels(_preparation(image_size, like, resize, levels), table)
    one_hot = one_hot or (policy is not None and policy.mixes)
    source = BatchSource(table, preparation, int(batch_size), training, policy, seed, balance, shard or (0, 1), one_hot)
    if like is not None and not isinstance(like, Preparation):
        from cnnlab.models.metadata import require_same_order

        require_same_order(like, source.class_names, name="like")
    source.cache = _make_cache(cache, source)
    _try_on_one(source)
    if training or like is None:
        _compare_with_training(tuple(source.class_names), preparation, training)
    return source.dataset()


def _compare_with_training(names: tuple[str, ...], preparation: Preparation, training: bool) -> None:
    """Says where a class has another number here than in training: in a test folder that lacks one, for example."""
    size = preparation.image_size
    if training:
        _trained.setdefault((names, size), set()).add(preparation)
        return
    trained = [learned for learned, learned_size in _trained if learned_size == size and set(names) <= set(learned)]
    if trained and all(names != learned[: len(names)] for learned in trained):
        warnings.warn(
            f"These images have the classes {', '.join(names[:20])}, numbered in this order; the training images of "
            f"this process had {', '.join(trained[-1][:20])}. A network trained on those gives other numbers. If it "
            "is for this one, use `table['label'].cat.set_categories(train['label'].cat.categories)`.",
            stacklevel=3,
        )


def prepared_otherwise(classes: Sequence[str], prepared: Preparation) -> str:
    """What is to be said before a network is used on images prepared like this; nothing where all is well.

    Args:
        classes: Names of the network's classes.
        prepared: What the network says of itself: `models.preparation(model)`.

    Returns:
        A sentence, if this process loaded training images of these classes and this size, and always prepared them
        otherwise or had the classes in another order; else an empty text.

    Example:
        >>> from cnnlab.images import Preparation
        >>> prepared_otherwise(["cat", "dog"], Preparation((32, 32)))
        ''
    """
    seen = _trained.get((tuple(classes), prepared.image_size), set())
    orders = [names for names, _ in _trained if sorted(names) == sorted(classes)]
    if orders and tuple(classes) not in orders:
        return (
            f"The training images had their classes in the order {', '.join(orders[-1])}; the model names its outputs "
            f"{', '.join(classes)}. If it was trained on those, its answers have the wrong names: train it on "
            "`pipelines.load(…, like=model)`."
        )
    if not seen or prepared in seen:
        return ""
    return (
        f"The training images of these classes were prepared otherwise ({'; '.join(map(str, seen))}) than the model "
        f"says ({prepared}), so it may see images here that look different from those it learned from. Load them with "
        "`pipelines.load(…, like=model)`, and tell the model: `resize=` and `levels=` where it is built, or in "
        "`models.with_classes`."
    )


def _try_on_one(source: BatchSource) -> None:
    """Lets what cannot work fail now, on the first image that can be read, not within an epoch."""
    if len(source) == 0:
        raise ValueError(f"`shard` {source.shard} leaves no row of {len(source.paths)}. Use fewer workers.")
    for row in range(min(SAMPLE, len(source.paths)) if isinstance(source.policy, FunctionPolicy) else 0):
        try:
            image = source.pixels(row)
        except (OSError, ValueError):
            continue
        source.policy.changed(image, source.seed % 2**32)
        return


def _preparation(
    image_size: tuple[int, int] | None, like: Any, resize: Resize | None, levels: tuple[float, float] | None
) -> Preparation:
    """What the arguments ask for: the model's preparation, or the one spelled out."""
    if like is None:
        if image_size is None:
            raise ValueError(
                "`pipelines.load` expects `like=model`, or `image_size=(height, width)`. Received: neither. "
                "`like` takes size, channels and resize mode from the model."
            )
        return Preparation(image_size, resize=resize or "fit", levels=levels)
    if isinstance(like, Preparation):
        prepared = like
    else:
        from cnnlab import models

        prepared = models.preparation(like)
    for name, value in (("image_size", image_size), ("resize", resize), ("levels", levels)):
        if value is not None and getattr(prepared, name) != (value if isinstance(value, str) else tuple(value)):
            raise ValueError(
                f"`like` already says how images are prepared: {prepared}. Received: {name}={value!r}. Leave it out, "
                f"or say it where the model is built or named: `models.with_classes(model, classes, {name}=…)`."
            )
    return prepared


def _with_levels(prepared: Preparation, table: pd.DataFrame) -> Preparation:
    """The levels that `audit.scan` found in the table's deep images, where neither argument nor model says others."""
    if prepared.levels is not None or "levels" not in table:
        return prepared
    found = levels_of(table)
    if found is not None and found not in _levels_said:
        _levels_said.add(found)
        logger.warning(
            "Levels %g to %g of deep images become black to white, as the table's column `levels` says. Build the "
            "model with `levels=(%g, %g)`, so that it is used like that everywhere.", *found, *found,
        )  # fmt: skip
    return prepared if found is None else replace(prepared, levels=found)


def _make_cache(kind: caches.Kind, source: BatchSource) -> caches.Cache:
    if kind == "disk":
        return caches.DiskCache()
    limit = int(caches.free_memory() * caches.MEMORY_SHARE) if kind else 0
    return caches.MemoryCache(0 if kind == "auto" and _expected_bytes(source) > limit else limit)


def _expected_bytes(source: BatchSource) -> float:
    """What all decoded images take, judged by the headers of a few."""
    height, width = source.image_size
    if source.detail is None:
        return height * width * 3.0 * len(source.paths)
    sizes = []
    for row in evenly_spaced(len(source.paths), SAMPLE):
        with suppress(OSError, ValueError):
            size = declared_size(read_file(source.paths[row]))
            if size is not None:
                sizes.append(size[0] * size[1] * 3 / source.reduction(size) ** 2)
    return float(np.mean(sizes)) * len(source.paths) if sizes else 0.0


def _require_rows(table: pd.DataFrame) -> None:
    require_columns(table, "path", "label", caller="pipelines.load")
    if len(table) == 0:
        raise ValueError("`table` has no rows, so there is nothing to load. Check the condition that selected them.")
    if table["path"].isna().any():
        raise ValueError(f"`path` is empty in {int(table['path'].isna().sum())} of {len(table)} rows. Drop those rows.")
    missing = int(table["label"].isna().sum())
    if missing:
        raise ValueError(
            f"`label` is empty in {missing} of {len(table)} rows, which have no class to learn or to check. "
            "Drop them, for example with table.dropna(subset=['label'])."
        )
    first = [str(path) for path in table["path"].head(8)]
    if not any(Path(path).exists() for path in first):
        raise FileNotFoundError(
            f"None of the first {len(first)} files exist, such as {first[0]} (looked up from {Path.cwd()}). "
            "Paths that are not absolute are relative to the folder Python runs in."
        )


def _require_arguments(
    batch_size: object, training: bool, augment: Any, seed: object, balance: object, cache: object, shard: Any
) -> None:
    if seed is not None:
        require_seed(seed, caller="pipelines.load")
    if not is_whole(batch_size):
        raise ValueError(f"`batch_size` must be a whole number from 1. Received: batch_size={batch_size!r}.")
    if augment is not None and not (hasattr(augment, "transform") or callable(augment)):
        raise TypeError(
            "`augment` must be an augment.Policy, such as augment.Policy(flip='horizontal') or augment.light, or a "
            f"function from one uint8 image (height, width, 3) to another. Received: {augment!r}."
        )
    if augment is not None and not training:
        raise ValueError(
            "`augment` is for training only: scores on images that were changed at random say nothing about real ones. "
            "Received: a policy with training=False. Add training=True for the training rows, or leave the policy out."
        )
    if balance is not None and not training:
        raise ValueError(
            "`balance` is for training only: scores must count every image once. Received: "
            f"balance={balance!r} with training=False."
        )
    if balance is not None and balance not in ("oversample", "undersample") and not is_number(balance, most=1):
        raise ValueError(
            "`balance` must be 'oversample', 'undersample', a number from 0 to 1 (the share of the largest class that "
            f"each class reaches), or None. Received: balance={balance!r}."
        )
    if cache is not False and cache not in ("auto", "memory", "disk"):
        raise ValueError(f"`cache` must be 'auto', 'memory', 'disk' or False. Received: cache={cache!r}.")
    if shard is not None:
        whole = isinstance(shard, (tuple, list)) and len(shard) == 2 and all(is_whole(part, least=0) for part in shard)
        if not whole or not 0 <= shard[0] < shard[1]:
            raise ValueError(
                "`shard` must be (index, count) with 0 <= index < count, for example (0, 2). "
                f"Received: shard={shard!r}."
            )
        if training and seed is None and shard[1] > 1:
            raise ValueError(
                "`shard` expects a `seed` in training, the same for all workers, such as seed=0: each would draw an "
                "order of its own, so that some rows came twice and others never. Received: seed=None."
            )
