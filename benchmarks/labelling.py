"""A simulated person labels images: what it takes until 97 % of the labels are right, and how honest the estimate is.

An action is a click, a key or a drag over neighbours in one row of the grid. Labelling one by one takes a key for each
image. The person errs in 2 of 100 images.

Usage: CNNLAB_REAL_DATA=folder python benchmarks/labelling.py [clothing|sign_digits|inspection …] [--seeds 3]
       [--coverage 100]
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

from cnnlab import experiments, samples, tables

GOAL, MISTAKES, COLUMNS = 0.97, 0.02, 8


class InRandomOrder(experiments.Labeller):
    """The same proposals for images in random order."""

    def _next(self):
        super()._next()
        return self._rng.permutation(np.flatnonzero(self._codes == -1))[: self.size], False


def actions(classes):
    """To select these images, by drags where neighbours in one row belong together, and a key for each class."""
    count = len(set(classes) - {""})
    for place, name in enumerate(classes):
        count += name != "" and (place % COLUMNS == 0 or classes[place - 1] != name)
    return count


def simulate(labeller, truth, *, seed, goal=GOAL, estimates=True):
    """What it takes until enough labels are right; after each screen the estimate for the unseen, and its truth."""
    rng, names = np.random.default_rng(seed), np.unique(truth)
    screens, done, shown = 0, 0, []
    while True:
        rows = labeller.screen()
        final = np.array(labeller.proposed(np.arange(len(truth))), dtype=object)
        open_rows = labeller.table()["label"].isna().to_numpy()
        right = (final == truth)[open_rows]
        if estimates and (found := labeller.estimate()):
            shown.append((*found, right.mean()))
        right_labels = right.sum() + (labeller.table()["label"].to_numpy() == truth)[~open_rows].sum()
        if not len(rows) or right_labels >= goal * len(truth):
            return {"screens": screens, "actions": done, "left": int(open_rows.sum()), "shown": shown}
        errs = rng.random(len(rows)) < MISTAKES
        seen = np.where(errs, rng.choice(names, len(rows)), truth[rows])
        proposed = np.array(labeller.proposed(rows), dtype=object)
        screens += 1
        if not proposed[0]:  # all are selected: take out what does not belong, press the class, pass over the others
            name = max(names, key=lambda name: (seen == name).sum())
            others = seen != name
            done += actions(["other" if other else "" for other in others]) + 1
            labeller.answer(rows[~others], name)
            labeller.skip()
            continue
        moved = np.where(seen == proposed, "", seen)
        done += actions(list(moved)) + 1  # and the key that confirms
        for name in set(moved) - {""}:
            labeller.answer(rows[moved == name], name)
        labeller.confirm()


def sets(names, folder):
    data = Path(os.environ.get("CNNLAB_REAL_DATA", ""))
    for name in names:
        if name == "inspection":
            yield name, tables.from_folder(samples.inspection(f"{folder}/parts", per_class=150, seed=0))
            continue
        table = tables.from_folder(data / name)
        yield name, table[table["split"] != "val"] if "split" in table else table


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--coverage", type=int, default=0, help="simulations of how often the estimate is honest")
    options = parser.parse_args()
    print("| images | order | screens | actions | of one by one | never looked at | estimate covers |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, table in sets(options.sets or ("clothing", "sign_digits", "inspection"), folder):
            features = experiments.features("EfficientNetLite0", table, pyramid=True)
            truth = table["label"].astype(str).to_numpy()
            for kind in (experiments.Labeller, InRandomOrder):
                runs = []
                for seed in range(max(options.seeds, options.coverage if kind is experiments.Labeller else 0)):
                    bare, names = (
                        table[["path"]].reset_index(drop=True),
                        list(table["label"].cat.categories.astype(str)),
                    )
                    labeller = kind(bare, features, names, file=f"{folder}/{name}{kind.__name__}{seed}.csv", seed=seed)
                    runs.append(simulate(labeller, truth, seed=seed, estimates=kind is experiments.Labeller))
                mean = {key: np.mean([run[key] for run in runs]) for key in ("screens", "actions", "left")}
                shown = np.array([each for run in runs for each in run["shown"]]).reshape(-1, 4)
                inside = (shown[:, 1] <= shown[:, 3]) & (shown[:, 3] <= shown[:, 2])
                last = [
                    low <= right <= high for run in runs if run["shown"] for _, low, high, right in run["shown"][-1:]
                ]
                figures = f"{mean['screens']:.0f} | {mean['actions']:.0f} | {mean['actions'] / len(table):.1%}"
                covers = f"{inside.mean():.2f} of {len(inside)}, at the end {np.mean(last):.2f}" if len(shown) else ""
                print(
                    f"| {name} ({len(table):,}) | {kind.__name__} | {figures} | {mean['left']:.0f} | {covers} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
