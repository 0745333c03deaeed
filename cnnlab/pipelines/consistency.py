"""Remembers how training images were prepared in this process, to say where a network is then used otherwise."""

from collections.abc import Sequence

from cnnlab.images import Preparation

_trained: dict[tuple[tuple[str, ...], tuple[int, int]], set[Preparation]] = {}


def remember(classes: Sequence[str], prepared: Preparation) -> None:
    """Notes that images of these classes were loaded for training like this."""
    _trained.setdefault((tuple(classes), prepared.image_size), set()).add(prepared)


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
