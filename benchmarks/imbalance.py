"""Rendered inspection parts at 1:50: what each remedy for rare classes does to macro-F1, on the same folds.

Usage: python benchmarks/imbalance.py [--good 600] [--imbalance 50] [--epochs 25] [--seed 0] [--folder runs/imbalance]
"""

import argparse
import contextlib
import io
import tempfile

from cnnlab import augment, experiments, models, samples, tables, training

SIZE = (64, 64)
FOLDS = 3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--good", type=int, default=600)
    parser.add_argument("--imbalance", type=float, default=50)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--remedies", nargs="+", default=[*experiments.REMEDIES, "rendered"])
    parser.add_argument("--folder", help="keeps finished folds, so that a second call goes on")
    options = parser.parse_args()
    with contextlib.nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as folder:
        images = f"{folder}/images_{options.good}_{options.imbalance:g}_{options.seed}"
        parts = samples.inspection(
            images + "/parts", per_class=options.good, imbalance=options.imbalance, seed=options.seed
        )
        table = tables.from_folder(parts)
        rendered = tables.from_folder(samples.inspection(images + "/more", per_class=100, seed=options.seed + 1000))
        rendered = rendered[rendered["label"] != "good"]
        known = experiments.REMEDIES | {"rendered": experiments.Remedy(extra=rendered)}
        steps = options.epochs * -(-len(table) * (FOLDS - 1) // FOLDS // 32)

        def build():
            model = models.small_cnn(image_size=SIZE, classes=table["label"].cat.categories)
            with contextlib.redirect_stdout(io.StringIO()):
                return training.compile(model, learning_rate=training.one_cycle(5e-3, steps=steps))

        bench = experiments.imbalance(
            build,
            table,
            remedies={name: known[name] for name in options.remedies},
            folds=FOLDS,
            image_size=SIZE,
            epochs=options.epochs,
            seed=options.seed,
            folder=options.folder,
            augment=augment.Policy(flip="both", rotate=10, zoom=0.1, shift=0.05, brightness=0.15, contrast=0.15),
        )
        counts = table["label"].value_counts(sort=False).to_dict()
        print(f"{counts}, {FOLDS} folds, {options.epochs} epochs, seed {options.seed}\n")
        print(
            "| remedy | macro-F1 (95 %) | minus none (95 %) | verdict | minority recall | calibration error | seconds |"
        )
        print("|---|---|---|---|---|---|---|")
        seconds = bench.runs.groupby("remedy")["seconds"].sum()
        for name, part in bench.scores.groupby("remedy", sort=False):
            row = part.set_index("metric")
            f1, recall, error = (row.loc[metric] for metric in ("macro_f1", "minority_recall", "calibration_error"))
            moved = f"{f1.difference:+.3f} ({f1.difference_low:+.3f} to {f1.difference_high:+.3f})"
            print(
                f"| {name} | {f1.value:.3f} ({f1.low:.3f} to {f1.high:.3f}) | {'' if name == 'none' else moved} "
                f"| {f1.verdict} | {recall.value:.3f} | {error.value:.3f} | {seconds[name]:.0f} |"
            )
        print("\n" + bench.verdict)


if __name__ == "__main__":
    main()
