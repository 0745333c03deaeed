"""scikit-learn's real handwritten digits as image files."""

import os
from pathlib import Path

import numpy as np

from cnnlab._common import progress
from cnnlab.samples.folder import encoded, recipe


def digits(folder: str | os.PathLike[str]) -> Path:
    """Writes the 1,797 real handwritten digits that ship with scikit-learn as 8×8 grey PNG files, one folder a class.

    Small enough to train on in seconds, real enough to be wrong about. Runs once; later calls return at once, and
    an interrupted call continues where it stopped.

    Args:
        folder: Where to; made if it does not exist.

    Returns:
        The folder, ready for `tables.from_folder`.

    Raises:
        FileExistsError: If the folder holds anything else.

    Source:
        UCI "Optical recognition of handwritten digits" (Alpaydin, Kaynak 1998), through
        `sklearn.datasets.load_digits`.

    Example:
        >>> from cnnlab import samples
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sorted(path.name for path in samples.digits(folder + "/digits").iterdir() if path.is_dir())[:3]
        ['0', '1', '2']
    """
    from sklearn.datasets import load_digits

    folder = Path(folder).expanduser()
    with recipe(folder, {"name": "digits"}) as write:
        if write is not None:
            data = load_digits()
            pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
            pairs = list(zip(pixels, data.target, strict=True))
            for index, (image, label) in enumerate(progress(pairs, label="digits")):
                write(f"{label}/{index:04d}.png", encoded(image, "PNG"))
    return folder
