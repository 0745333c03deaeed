import itertools

import numpy as np
import pandas as pd
import pytest

from cnnlab import plots


def results(**grid):
    rows = []
    for trial, values in enumerate(itertools.product(*grid.values())):
        for fold in range(3):
            score = {"fold": fold, "val_accuracy": 0.5 + trial / 100 + fold / 1000, "seconds": 1.0, "problem": ""}
            rows.append({"trial": trial} | dict(zip(grid, values, strict=True)) | score)
    return pd.DataFrame(rows)


def test_two_parameters_are_a_heatmap_of_means():
    table = results(learning_rate=[0.1, 0.01], batch_size=[8, 16, 32])
    axes = plots.grid(table)
    assert len(axes) == 3
    values = axes[0].images[0].get_array()
    means = table.groupby(["learning_rate", "batch_size"])["val_accuracy"].mean().unstack()
    np.testing.assert_allclose(values, means.sort_index())
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["0.01", "0.1"]


def test_more_parameters_are_lines_and_one_is_itself():
    table = results(learning_rate=[0.1, 0.01], batch_size=[8, 16], augment=["None", "Policy(rotate=5)"])
    axes = plots.grid(table)
    lines = [line for line in axes[0].lines if len(line.get_xdata()) == 4]
    assert len(lines) == 8
    assert len(axes) == 4
    assert len(plots.grid(results(learning_rate=[0.1, 0.01]))) == 1


def test_a_long_value_is_wrapped_and_not_cut_off():
    policy = "Policy(rotate=8, shift=0.06, brightness=0.2)"
    axes = plots.grid(results(learning_rate=[0.1, 0.01], dropout=[0.0, 0.3], augment=["None", policy]))
    for texts in (axes[0].texts, axes[3].get_xticklabels()):
        words = [text.get_text() for text in texts]
        assert policy in [" ".join(word.split()) for word in words]
        assert max(len(line) for word in words for line in word.splitlines()) <= 18


def test_effects_are_means_over_everything_else():
    table = results(learning_rate=[0.1, 0.01], batch_size=[8, 16])
    axes = plots.grid(table)
    line = next(line for line in axes[2].lines if line.get_color() == "black")
    np.testing.assert_allclose(line.get_ydata(), table.groupby("batch_size")["val_accuracy"].mean())


def test_points_without_a_score_are_crossed_out():
    table = results(learning_rate=[0.1, 0.01], batch_size=[8, 16])
    table.loc[table["trial"] == 2, "val_accuracy"] = np.nan
    axes = plots.grid(table)
    assert "×" in [text.get_text() for text in axes[0].texts]


def test_what_is_no_search_is_refused():
    with pytest.raises(ValueError, match="two points or more"):
        plots.grid(results(learning_rate=[0.1]))
    with pytest.raises(KeyError, match="trial"):
        plots.grid(pd.DataFrame({"a": [1]}))
