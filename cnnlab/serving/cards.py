"""The model card: a README.md in the export that says what the model is, how good, for whom, and where it ends."""

import html
import os
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cnnlab import fairness, metrics
from cnnlab._common import require_columns
from cnnlab.serving import placing
from cnnlab.serving.description import ABOUT, CARD, FILE_OF, SECTIONS, Description, read_description
from cnnlab.serving.engines import digest_of

SPECIAL = re.compile(r"([\\`*_{}\[\]|~$]|^[#+=-]|(?<=^\d)[.)])")
NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
FEW = 30  # images of a class in the scored rows


def card(
    folder: str | os.PathLike[str],
    predictions: pd.DataFrame,
    *,
    table: pd.DataFrame | None = None,
    by: str | None = None,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Writes the model card of an export anew, with the scores that count: those of the test rows.

    Args:
        folder: What `serving.export` wrote.
        predictions: From `experiments.predict(model, test)`.
        table: All rows, to say how many images of each class were in which split.
        by: Column that says which group an image belongs to, to score groups apart.
        about: Your own words on any of "purpose", "data", "limits", "licence" and "contact". They are kept in
            `export.json`: cards and exports that come later say them again, until you give others.

    Returns:
        The card's path, README.md in `folder`; one that you changed yourself moves to `earlier/`. Names from your data
        are escaped: none of them can become a link, HTML or a table's border.

    Raises:
        FileNotFoundError: If the folder is not an export.
        ValueError: If `about` has another key, or the predictions are of other classes.

    Example:
        >>> card("runs/first/export", predictions, table=table, by="camera",
        ...      about={"purpose": "Sorts out cracked parts.", "licence": "CC BY 4.0"})  # doctest: +SKIP
    """
    folder = Path(folder).expanduser()
    facts = read_description(folder)
    strange = [key for key in about or {} if key not in SECTIONS]
    if strange:
        raise ValueError(f"`about` knows {', '.join(SECTIONS)}. Received: {', '.join(map(repr, strange))}.")
    require_columns(predictions, "label", "predicted", *([by] if by else []), caller="serving.card")
    categories = [str(name) for name in predictions["label"].cat.categories]
    if categories != facts.classes:
        raise ValueError(f"`serving.card` expects the export's classes {facts.classes}. Received {categories}.")
    with placing.working_folder(folder) as working, placing.turn(folder) as earlier:
        facts = earlier or facts
        facts = replace(facts, about=facts.about | {key: str(words) for key, words in (about or {}).items()})
        write(working, facts, predictions, table=table, by=by)
        placing.put_in_place(folder, working, [CARD, ABOUT], [CARD, ABOUT], earlier)
    return folder / CARD


def write(
    working: Path,
    facts: Description,
    predictions: pd.DataFrame,
    *,
    table: pd.DataFrame | None = None,
    by: str | None = None,
) -> None:
    """Writes README.md, and `export.json` that knows it."""
    about = {key: escaped(words, 2000) for key, words in facts.about.items() if words}
    sections = {
        "Purpose": [about.get("purpose", "Not stated.")],
        "Data": [about.get("data", "Origin not stated."), *([] if table is None else [_counts(table)])],
        "Scores": _scores(predictions),
        "Groups": [_groups(predictions, by)],
        "Limits": ["\n".join(f"- {line}" for line in _limits(facts, predictions, about.get("limits")))],
        "Files": _files(facts),
        "Licence": [about.get("licence", "Not stated.")],
        "Contact": [about["contact"]] if "contact" in about else [],
    }
    parts = [_head(facts), *("\n\n".join([f"## {title}", *text]) for title, text in sections.items() if text)]
    (working / CARD).write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    facts = replace(facts, card=digest_of(working / CARD))
    (working / ABOUT).write_text(facts.to_json(), encoding="utf-8")


def escaped(name: object, length: int = 80) -> str:
    r"""A name from someone's data as text that stays text, in Markdown and in the HTML made from it.

    >>> print(escaped("<b>|a*b*|</b>"))
    &lt;b&gt;\|a\*b\*\|&lt;/b&gt;
    """
    text = " ".join(NOT_PRINTED.sub(" ", str(name)).split())
    text = text if len(text) <= length else text[: length - 1] + "…"
    text = SPECIAL.sub(r"\\\1", html.escape(text, quote=False))
    # what would become a link of itself
    return re.sub(r"(://|www\.|@)", lambda found: f"&#{ord(found[0][0])};{found[0][1:]}", text)


def _head(facts: Description) -> str:
    height, width = facts.preparation.image_size
    colour = "grey" if 1 in (facts.preparation.channels, facts.grey_by_mean) else "colour"
    names = ", ".join(escaped(name) for name in facts.classes)
    tools = ", ".join(f"{escaped(tool)} {escaped(version)}" for tool, version in facts.made_with.items())
    called = [
        f" It is called {escaped(name)} from a probability of {least:.3g} up, else the likeliest other class."
        for name, least in facts.threshold.items()
    ]
    return (
        f"# Model card: {escaped(facts.network)}\n\n"
        f"Tells {len(facts.classes)} classes of images apart: {names}.{''.join(called)}\n\n"
        f"Takes {colour} images of {width} × {height} pixels, 0-255; {facts.weights:,} weights. "
        f"Exported {escaped(facts.made)} with {tools}.\n\n"
        '```python\nfrom cnnlab import serving\n\npredictor = serving.Predictor("this folder")\n'
        'predictor("photo.jpg").label\n```'
    )


def _counts(table: pd.DataFrame) -> str:
    """Images of each class in each split."""
    require_columns(table, "label", caller="serving.card")
    splits = table["split"].astype(str) if "split" in table else pd.Series("images", index=table.index)
    counts = pd.crosstab(table["label"], splits).reindex(table["label"].cat.categories, fill_value=0)
    return _grid(
        ["class", *map(escaped, counts.columns)],
        [[escaped(name), *row] for name, row in zip(counts.index, counts.to_numpy(), strict=True)],
    )


def _scores(predictions: pd.DataFrame) -> list[str]:
    predictions = predictions[predictions[["label", "predicted"]].notna().all(axis=1)]
    if not len(predictions):
        return ["None: no image with a known label was looked at."]
    scores = metrics.scores(predictions, bootstrap=1000, seed=0).dropna(subset=["value"])
    classes = metrics.per_class(predictions, bootstrap=1000, seed=0)
    splits = [escaped(name) for name in predictions["split"].dropna().unique()] if "split" in predictions else []
    split = f" of the split {' and '.join(splits)}" if splits else ""
    majority = predictions["label"].value_counts(normalize=True).iloc[0]
    return [
        f"On {len(predictions):,} images{split}. In brackets the 95 % interval: where the score would land if other "
        f"images were drawn. Always answering the most frequent class would be right for {majority:.1%}.",
        _grid(["score", "value"], [[row["metric"].replace("_", " "), _interval(row)] for _, row in scores.iterrows()]),
        _grid(
            ["class", "precision", "recall", "images"],
            [
                [escaped(name), _interval(row, "precision"), _interval(row, "recall"), int(row["support"])]
                for name, row in classes.iterrows()
            ],
        ),
    ]


def _groups(predictions: pd.DataFrame, by: str | None) -> str:
    if by is None:
        return "Not scored apart. A good average can hide a group for which the model does not work."
    groups = fairness.groups(predictions.dropna(subset=["label", "predicted", by]), by, smallest=0)
    rows = groups[groups["metric"] == "accuracy"].iterrows()
    return _grid(
        [escaped(by), "accuracy", "images"], [[escaped(row[by]), _interval(row), int(row["images"])] for _, row in rows]
    )


def _limits(facts: Description, predictions: pd.DataFrame, stated: str | None) -> list[str]:
    lines = [
        *([stated] if stated else []),
        "It answers with one of its classes whatever the image shows; `Predictor.fit_novelty` tells images apart "
        "that are unlike those it learned from.",
    ]
    counts = predictions["label"].value_counts()
    few = [f"{escaped(name)} ({count})" for name, count in counts.items() if count < FEW]
    if few:
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        lines.append(f"Scored on fewer than {FEW} images, so that little is known: {', '.join(few[:10])}{more}.")
    if facts.temperature == 1:
        why = "its threshold was chosen without" if facts.threshold else "too few images, or no mistakes to learn from"
        return [*lines, f"Its confidence is not calibrated: {why}."]
    return [*lines, f"Its confidence is calibrated with the temperature {facts.temperature:.3g}."]


def _files(facts: Description) -> list[str]:
    rows = [
        [
            FILE_OF[name],
            f"{file['megabytes']:.2f}",
            f"{file['agreement']:.1%} of {file['images']:.0f}",
            f"{file['largest_difference']:.2g}",
            f"{file['p50_ms']:.2f} / {file['p95_ms']:.2f}",
        ]
        for name, file in facts.formats.items()
    ]
    titles = ["file", "MB", "same label", "largest difference of a probability", "ms an image, p50 / p95"]
    compared = f"Each was compared with the Keras model on {facts.checked_on:.0f} real images before it was kept."
    return [compared, _grid(titles, rows)]


def _interval(row: Any, score: str = "") -> str:
    """A score of a row and its interval: value, low and high, or those of a score's name."""
    names = (score, f"{score}_low", f"{score}_high") if score else ("value", "low", "high")
    value, low, high = (row[name] for name in names)
    if pd.isna(value):
        return "–"
    return f"{value:.3f}" if pd.isna(low) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _grid(titles: Sequence[Hashable], rows: Iterable[Sequence[Any]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
