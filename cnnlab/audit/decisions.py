"""What a person decided about single images: rows in a CSV, applied to a table, undone by dropping the row."""

import datetime
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnlab._common import atomic_path, did_you_mean, locked, require_columns
from cnnlab._csv import read_csv, write_csv
from cnnlab._groups import found_by_scan
from cnnlab.audit.images import CONFLICT, label_conflicts

ACTIONS = ("relabel", "exclude", "keep")
COLUMNS = ["path", "action", "label", "reason", "time"]


def decide(
    table: pd.DataFrame,
    paths: str | Iterable[str],
    action: str,
    *,
    file: str | os.PathLike[str],
    label: str | None = None,
    reason: str = "",
) -> pd.DataFrame:
    """Writes down what to do with some images; the images themselves and the table stay as they are.

    Args:
        table: The table that the images are in.
        paths: One path or several, as in the table.
        action: "relabel", "exclude", or "keep" (looked at, and all right as the folder or CSV has it: a problem is set
            aside, and a new label taken back).
        file: The CSV of decisions, made if there is none. Paths below its folder are kept relative to it, so that
            images and decisions can move together.
        label: The new label, a category of the table's labels; with "relabel" only.
        reason: For those who read it later.

    Returns:
        All decisions so far: path, action, label, reason, time; the last one about an image counts.

    Raises:
        ValueError: If the action or the label is unknown, or a path is not in the table.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> from cnnlab import audit
        >>> table = pd.DataFrame({"path": ["1.png", "2.png"], "label": pd.Categorical(["cat", "dog"])})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = folder + "/decisions.csv"
        ...     _ = audit.decide(table, "1.png", "relabel", label="dog", reason="barks", file=file)
        ...     audit.apply(table, file)["label"].tolist(), audit.undo(file)["path"].tolist()
        (['dog', 'dog'], [])
    """
    require_columns(table, "path", "label", caller="audit.decide")
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    _check(table, [str(path) for path in paths], action, label)
    return append(
        [[path, action, "" if label is None else str(label), reason] for path in paths], Path(file).expanduser()
    )


def append(rows: list[list[Any]], file: Path) -> pd.DataFrame:
    """Writes down decisions (path, action, label, reason) that are known to be sound; gives all so far, these last."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    added = pd.DataFrame([[kept_path(path, file), *rest, now] for path, *rest in rows], columns=COLUMNS, dtype="str")
    with locked(file):  # two notebooks may decide at once
        return _write(pd.concat([decisions(file), added], ignore_index=True), file)


def apply(table: pd.DataFrame, file: str | os.PathLike[str]) -> pd.DataFrame:
    """Carries out the decisions in `file` on a table: new labels, excluded rows left out, kept ones without problem.

    Args:
        table: With the columns path and label; where it has a column problem, "same picture … labelled" is looked at
            anew, since a decision may have settled it.
        file: The CSV that `audit.decide` or `widgets.relabel` wrote; a file that does not exist holds no decisions.

    Returns:
        A copy. Decisions about images that are not in the table change nothing.

    Warns:
        UserWarning: If none of the decisions is about an image of the table.

    Raises:
        ValueError: If a decided label is not a category of the table, or the file is not a table of decisions.

    Example:
        See `audit.decide`.
    """
    require_columns(table, "path", "label", caller="audit.apply")
    found = latest(table, file)
    done = decisions(file)
    if len(table) and len(done) and (found["row"] < 0).all():
        warnings.warn(
            f"None of the {len(done)} decisions in {str(file)!r} is about an image of this table; the last is about "
            f"{done['path'].iloc[-1]!r}. Have images or the file moved, or is this another table?",
            stacklevel=2,
        )
    relabelled, kept = (found["action"].to_numpy() == action for action in ("relabel", "keep"))
    names = {str(name): name for name in table["label"].cat.categories}
    strange = sorted(set(found["label"][relabelled]) - set(names))
    if strange:
        raise ValueError(
            f"{str(file)!r} gives images the label {strange[0]!r}, which is not a category of the table. Add it with "
            f"`table['label'].cat.add_categories({strange!r})`, or undo that decision."
        )
    # what was labelled from nothing and then found to be right has no other label
    given = table["label"].astype(object)
    given = given.where(given.notna(), found["named"].where(kept).map(names))
    labels = found["label"].map(names).where(relabelled, given)
    result = table.assign(label=labels.astype(table["label"].dtype))
    if "problem" in table:
        result["problem"] = result["problem"].where(~kept, "")
    stays = found["action"].to_numpy() != "exclude"
    result, kept = result[stays], kept[stays]
    if "problem" not in result or not found_by_scan(result):
        return result
    # bring the problem "same picture … labelled" up to date, except on rows that a person keeps
    conflicts = pd.Series(label_conflicts(result), index=result.index, dtype="str")
    asked = ((result["problem"] == "") | result["problem"].str.startswith(CONFLICT)) & ~kept
    return result.assign(problem=result["problem"].mask(asked, conflicts))


def undo(file: str | os.PathLike[str], paths: str | Iterable[str] | None = None) -> pd.DataFrame:
    """Takes back the last decision about each of `paths`, or the very last one of all.

    Args:
        file: The CSV of decisions.
        paths: As in the table; None for the latest decision, whatever it was about.

    Returns:
        The decisions that remain.

    Raises:
        ValueError: If there is nothing to undo.

    Example:
        See `audit.decide`.
    """
    file = Path(file).expanduser()
    nothing = f"Expected a decision to undo. {str(file)!r} holds none."
    if not file.exists():
        raise ValueError(nothing)
    with locked(file):
        table = decisions(file)
        if not len(table):
            raise ValueError(nothing)
        if paths is None:
            return _write(table.iloc[:-1], file)
        paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        last = {path: index for index, path in enumerate(table["path"])}
        missing = [path for path in paths if kept_path(path, file) not in last]
        if missing:
            raise ValueError(f"Expected paths with a decision in {str(file)!r}. There is none about {missing[0]!r}.")
        return _write(table.drop(index=[last[kept_path(path, file)] for path in paths]), file)


def decisions(file: str | os.PathLike[str]) -> pd.DataFrame:
    """All decisions in a CSV, oldest first; none where there is no such file.

    Args:
        file: The CSV that `audit.decide` or `widgets.relabel` wrote.

    Returns:
        path, action, label, reason, time (UTC), all text.

    Raises:
        ValueError: If the file is not a table of decisions.

    Example:
        >>> from cnnlab import audit
        >>> len(audit.decisions("there is none.csv"))
        0
    """
    file = Path(file).expanduser()
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS, dtype="str")
    table = read_csv(file, wanted=COLUMNS) if file.is_file() else pd.DataFrame()
    if list(table.columns) != COLUMNS or not table["action"].isin(ACTIONS).all():
        raise ValueError(
            f"Expected a table of decisions with the columns {', '.join(COLUMNS)} and the actions "
            f"{', '.join(ACTIONS)}. {str(file)!r} holds something else and is left as it is. Name another file."
        )
    return table


def latest(table: pd.DataFrame, file: str | os.PathLike[str]) -> pd.DataFrame:
    """The decision that counts for each row of `table`: action ("" where there is none), label, its row in `file`.

    And the label that was given last, whatever was decided since, as `named`.
    """
    file = Path(file).expanduser()
    done = decisions(file)
    last = done.assign(row=np.arange(len(done))).drop_duplicates("path", keep="last").set_index("path")
    named = done[done["action"] == "relabel"].drop_duplicates("path", keep="last").set_index("path")["label"]
    found = last.assign(named=named).reindex([kept_path(path, file) for path in table["path"]]).set_axis(table.index)
    return found[["action", "label", "named"]].fillna("").assign(row=found["row"].fillna(-1).astype(int))


def still_last(written: pd.DataFrame, file: Path) -> list[str]:
    """The paths, as in the file, about which these decisions are still the last: nobody else has decided since."""
    last = decisions(file).drop_duplicates("path", keep="last")
    return last.merge(written.drop_duplicates("path", keep="last"))["path"].tolist()


def _check(table: pd.DataFrame, paths: list[str], action: str, label: str | None) -> None:
    if action not in ACTIONS:
        raise ValueError(f"`action` expects {', '.join(map(repr, ACTIONS))}. Received: {action!r}.")
    categories = [str(name) for name in table["label"].cat.categories]
    if action == "relabel" and str(label) not in categories:
        hint = did_you_mean(label, categories, count=1)
        raise ValueError(
            f"`label` expects a class of the table: {', '.join(categories)}. Received: {label!r}.{hint} For a new "
            "class: `table['label'].cat.add_categories([...])`."
        )
    if action != "relabel" and label is not None:
        raise ValueError(f"`label` goes with action='relabel' only. Received: action={action!r}, label={label!r}.")
    unknown = set(paths) - set(table["path"].astype(str))
    if unknown:
        raise ValueError(
            f"`paths` expects paths of the table. {len(unknown)} of {len(paths)} are not in it, such as "
            f"{sorted(unknown)[0]!r}."
        )


def kept_path(path: str | os.PathLike[str], file: Path) -> str:
    """How a path stands in the CSV: relative where the image lies below the CSV's folder, else absolute."""
    # Not `resolve`: a link to an image is another image, and asking the disk for each of many paths takes long.
    whole, folder = os.path.abspath(path), os.path.abspath(file.parent)  # noqa: PTH100
    inside = whole.startswith(folder.rstrip(os.sep) + os.sep)
    return Path(os.path.relpath(whole, folder) if inside else whole).as_posix()


def _write(table: pd.DataFrame, file: Path) -> pd.DataFrame:
    with atomic_path(file) as temporary:
        write_csv(table, temporary)
    return table.reset_index(drop=True)
