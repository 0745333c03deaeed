"""TensorFlow Datasets as a source of collecting: the stored bytes become files once."""

import importlib.resources.abc
import importlib.util
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cnnlab._common import did_you_mean, progress
from cnnlab.samples.folder import recipe

MAGIC = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"GIF8": "gif", b"BM": "bmp", b"RIFF": "webp"}
SPLIT_OF = {"train": "train", "val": "val", "validation": "val", "test": "test"}
PROBES = ("storage.googleapis.com", "www.tensorflow.org", "pypi.org")  # one that answers is a network


def from_tfds(
    name: str,
    folder: str | os.PathLike[str],
    *,
    split: str | Sequence[str] | Mapping[str, str] = "train",
    data_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes an image-classification set of TensorFlow Datasets as one file an image, in its original encoded bytes.

    Runs once; an interrupted call continues where it stopped. Licence and citation are written next to the images,
    as `ABOUT.txt`. Needs the network unless the set is prepared in `data_dir` already.

    Args:
        name: A name of the TFDS catalogue, such as "tf_flowers" or "cifar10:3.0.2".
        folder: Where to; made if it does not exist.
        split: One split ("train", "test[:10%]", …), or several of which each gets a subfolder that `tables.from_folder`
            reads as a ready-made split: `["train", "test[:10%]"]`, or, where one is split,
            `{"train": "train[:80%]", "val": "train[80%:]"}`.
        data_dir: Where prepared sets lie; TFDS's own default where None.

    Returns:
        The folder, ready for `tables.from_folder`.

    Raises:
        ValueError: If there is no such set or split (the nearest names are given), it has no image and class label, or
            it is not clear which of several splits is train, val or test.
        ConnectionError: If the set is not prepared and cannot be downloaded.
        FileExistsError: If the folder holds anything else.

    Source:
        `tensorflow_datasets`, with `tfds.decode.SkipDecoding`.

    Example:
        >>> from cnnlab import samples
        >>> samples.from_tfds("tf_flowers", "flowers")  # doctest: +SKIP
    """
    folder = Path(folder).expanduser()
    builder = _builder(name, data_dir)
    image, label = _features(builder)
    splits = {"": split} if isinstance(split, str) else _folders_of(split)
    asked: Any = list(splits.values()) if not isinstance(split, Mapping) else splits
    made_by = {"name": f"tfds {builder.info.full_name}", "splits": asked}
    with recipe(folder, made_by) as write:
        if write is None:
            return folder
        _prepare(builder, name)
        _check_splits(builder, list(splits.values()))
        names = _folder_names(builder.info.features[label].names)
        write("ABOUT.txt", _about(builder.info).encode())
        for part, one in splits.items():
            for path, data in _files(builder, one, image, label, names):
                write(f"{part}/{path}" if part else path, data)
    return folder


def _folders_of(split: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """The folder for each of several splits: train, val or test, as their names say or the person does."""
    pairs = list(split.items()) if isinstance(split, Mapping) else [(one.split("[")[0], one) for one in split]
    folders = {SPLIT_OF.get(name, ""): one for name, one in pairs}
    if "" in folders or len(folders) < len(pairs):
        raise ValueError(
            f"Expected one split for each of train, val and test, so that `tables.from_folder` can tell them apart. "
            f'Received: {split!r}. Say which is which: split={{"train": "train[:80%]", "val": "train[80%:]"}}.'
        )
    return folders


def _builder(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    from cnnlab import _quiet  # noqa: F401  isort: skip
    import tensorflow_datasets as tfds

    # TFDS 4.9.10 prepares nothing without this package, which it forgets to require; Python has had it since 3.11.
    if importlib.util.find_spec("importlib_resources") is None:
        sys.modules["importlib_resources"] = importlib.resources
    try:
        return tfds.builder(name, data_dir=data_dir)
    except ValueError as error:
        known = set(tfds.list_builders(with_community_datasets=False))
        if data_dir is not None and Path(data_dir).is_dir():
            known |= {entry.name for entry in Path(data_dir).iterdir() if entry.is_dir()}
        hint = did_you_mean(name.split("/")[0].split(":")[0], sorted(known), count=3)
        raise ValueError(
            f"Expected the name of a set in TensorFlow Datasets. Received: {name!r}."
            f"{hint or ' See tensorflow.org/datasets/catalog.'}"
        ) from error


def _features(builder: Any) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    images = [key for key in features if isinstance(features[key], tfds.features.Image)]
    labels = [key for key in features if isinstance(features[key], tfds.features.ClassLabel)]
    if not images or not labels:
        raise ValueError(
            f"Expected a set of images with one class label each. {builder.info.full_name} has the features "
            f"{', '.join(features)}. Choose an image-classification set."
        )
    keys = builder.info.supervised_keys or ()  # where there are several, those of the set's own training
    image, label = (next(key for key in (*keys, *found) if key in found) for found in (images, labels))
    return image, label


def _prepare(builder: Any, name: str) -> None:
    """Downloads what is not prepared yet; turns the many ways in which that fails offline into one sentence."""
    if builder.info.splits:
        return
    try:
        with ThreadPoolExecutor(len(PROBES)) as pool:
            if not any(pool.map(_is_reached, PROBES)):  # TFDS would try again for minutes before it says so
                raise ConnectionError("there is no network")
        builder.download_and_prepare()
    except Exception as error:  # TFDS raises what its many downloaders raise; the person needs one sentence
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise  # a full disk is no missing network
        reason = (str(error).splitlines() or ["no reason given"])[0][:120]
        raise ConnectionError(
            f"{name!r} is not prepared on this machine and could not be downloaded ({type(error).__name__}: {reason}). "
            f"Connect to the network once, or copy a prepared set into {builder.data_dir} and pass `data_dir=`."
        ) from error


def _is_reached(host: str) -> bool:
    try:
        urllib.request.urlopen(f"https://{host}", timeout=5).close()
    except OSError as error:
        return isinstance(error, urllib.error.HTTPError)  # an answer, even if a refusal
    return True


def _check_splits(builder: Any, splits: list[str]) -> None:
    for split in splits:
        try:
            _ = builder.info.splits[split].num_examples
        except (KeyError, ValueError) as error:
            have = ", ".join(builder.info.splits)
            raise ValueError(f"Expected a split of {builder.info.full_name}: {have}. Received: {split!r}.") from error


def _folder_names(names: Sequence[str]) -> list[str]:
    """Class names as folder names: what a file system reads as a path is replaced."""
    safe = [name.replace("/", "_").replace("\\", "_").strip(". ") or "_" for name in names]
    alike = [name.casefold() for name in safe]  # one folder, on Windows and macOS
    return [name if alike.count(alike[index]) == 1 else f"{name}_{index}" for index, name in enumerate(safe)]


def _files(builder: Any, split: str, image: str, label: str, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """The path and the encoded bytes of each image of a split."""
    import tensorflow_datasets as tfds

    dataset = builder.as_dataset(
        split=split,
        shuffle_files=False,  # the order is the file names' order: the next run must find the same names
        decoders={image: tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False, add_tfds_id=False),
    )
    total = builder.info.splits[split].num_examples
    for index, row in enumerate(progress(dataset.as_numpy_iterator(), label=f"{builder.name} {split}", total=total)):
        data = row[image]
        ending = next((kind for magic, kind in MAGIC.items() if data.startswith(magic)), "png")
        yield f"{names[row[label]]}/{index:06d}.{ending}", data


def _about(info: Any) -> str:
    licence = info.redistribution_info.license if info.redistribution_info else ""
    return (
        f"{info.full_name}\n\n{info.description}\n\nHomepage: {info.homepage or 'not stated'}\n"
        f"Licence: {licence or 'not stated in TFDS; see the homepage'}\n\nCitation:\n{info.citation or 'not stated'}\n"
    )
