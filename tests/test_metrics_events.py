"""Alarms scored as events, against counts by hand, scipy, and what a stream gives."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.stats

from cnnlab import metrics, plots, serving
from cnnlab.metrics.intervals import wilson

TRUTH = pd.DataFrame(
    {"label": ["bag", "lying", "climbing", "bag"], "begin": [100, 200, 300, 1000], "end": [150, 260, 320, 1060]}
)


def alarms(*seconds, **columns):
    return pd.DataFrame({"seconds": list(seconds), **columns})


def results(matched):
    return matched["result"].tolist()


def test_found_missed_and_false_by_hand():
    matched = metrics.match_events(alarms(90, 110, 140, 261, 305, 700, label=list("abcdef")), TRUTH)
    assert results(matched) == ["false alarm", "found", "missed", "false alarm", "found", "false alarm", "missed"]
    first = matched[matched["result"] == "found"].iloc[0]
    assert (first["alarm"], first["delay"], first["alarms"], first["called"]) == (110, 10, 2, "b")
    scores = metrics.events(alarms(90, 110, 140, 261, 305, 700), TRUTH, hours=0.5).set_index("metric")
    assert scores["value"].to_dict() == pytest.approx(
        {"found": 0.5, "missed": 0.5, "false_alarms_per_hour": 6, "precision": 0.5, "delay": 7.5}
    )
    assert scores["count"].to_dict() == {
        "found": 2, "missed": 2, "false_alarms_per_hour": 3, "precision": 3, "delay": 2
    }  # fmt: skip


@pytest.mark.parametrize(("second", "found"), [(89, 0), (90, 1), (100, 1), (150, 1), (160, 1), (161, 0)])
def test_the_tolerance_holds_on_both_sides(second, found):
    matched = metrics.match_events(alarms(second), TRUTH, tolerance=10)
    assert (matched["result"] == "found").sum() == found
    assert (matched["result"] == "false alarm").sum() == 1 - found


def test_an_alarm_that_never_stops_finds_one_event_and_overlapping_events_each_need_their_own():
    assert results(metrics.match_events(alarms(0), TRUTH)) == ["false alarm", *["missed"] * 4]
    both = pd.DataFrame({"begin": [0, 5], "end": [20, 20]})
    assert results(metrics.match_events(alarms(6), both)) == ["found", "missed"]
    assert results(metrics.match_events(alarms(6, 7), both)) == ["found", "found"]


def test_an_alarm_goes_to_the_event_that_holds_it():
    truth = pd.DataFrame({"begin": [100, 155], "end": [150, 200]})
    matched = metrics.match_events(alarms(156, 170), truth, tolerance=10)
    assert matched[["result", "alarms"]].values.tolist() == [["missed", 0], ["found", 2]]
    assert matched.loc[1, "delay"] == 1
    inner = pd.DataFrame({"begin": [0, 5], "end": [100, 10]})
    assert metrics.match_events(alarms(6, 50), inner)["alarm"].tolist() == [50, 6]


@pytest.mark.parametrize("tolerance", [0, 8])
def test_as_many_events_are_found_as_alarms_can_find(tolerance):
    rng = np.random.default_rng(tolerance)
    for _ in range(60):
        begin, at = rng.integers(0, 100, rng.integers(1, 9)), rng.integers(0, 130, rng.integers(1, 9))
        end = begin + rng.integers(0, 40, len(begin))
        matched = metrics.match_events(alarms(*at), pd.DataFrame({"begin": begin, "end": end}), tolerance=tolerance)
        found, false = matched[matched["result"] == "found"], matched[matched["result"] == "false alarm"]
        assert matched["alarms"].sum() == len(at), "each alarm counts once"
        inside = (begin <= at[:, None]) & (at[:, None] <= end)
        most = (scipy.sparse.csgraph.maximum_bipartite_matching(scipy.sparse.csr_array(inside)) >= 0).sum()
        assert len(found) <= len(at) and len(matched) - len(false) == len(begin)
        assert len(found) == most if tolerance == 0 else len(found) >= most
        held = ((begin - tolerance <= at[:, None]) & (at[:, None] <= end + tolerance)).any(axis=1)
        assert sorted(false["alarm"]) == sorted(at[~held]), "no alarm within an event is false"


def test_order_and_index_do_not_matter():
    raised = alarms(305, 90, 110)
    straight = metrics.events(raised, TRUTH, hours=1)
    turned = metrics.events(raised[::-1], TRUTH.sample(frac=1, random_state=1).set_index("label"), hours=1)
    pd.testing.assert_frame_equal(straight, turned)


def test_intervals_are_wilsons_and_the_exact_poisson_one():
    scores = metrics.events(alarms(90, 110, 261, 305), TRUTH, hours=2).set_index("metric")
    assert scores.loc["found", ["low", "high"]].tolist() == pytest.approx([float(end) for end in wilson(0.5, 4)])
    low, high = scores.loc["false_alarms_per_hour", ["low", "high"]] * 2
    assert scipy.stats.poisson.sf(1, low) == pytest.approx(0.025)  # two or more, if the rate were `low`
    assert scipy.stats.poisson.cdf(2, high) == pytest.approx(0.025)
    none = metrics.events(alarms(), TRUTH, hours=2).set_index("metric").loc["false_alarms_per_hour"]
    assert (none["value"], none["low"]) == (0, 0)
    assert none["high"] == pytest.approx(-np.log(0.025) / 2)


def test_the_interval_of_the_delay_is_that_of_order_statistics():
    begin = np.arange(40) * 100.0
    delays = np.random.default_rng(0).permutation(40) + 1.0
    truth = pd.DataFrame({"begin": begin, "end": begin + 60})
    row = metrics.events(alarms(*(begin + delays)), truth, hours=2).set_index("metric").loc["delay"]
    below = scipy.stats.binom.cdf(row["low"] - 1, 40, 0.5)  # as many delays lie below the median as were drawn
    assert row["value"] == 20.5
    assert below <= 0.025 < scipy.stats.binom.cdf(row["low"], 40, 0.5)
    assert row["high"] == 41 - row["low"]


def test_no_alarm_no_event_and_too_few_to_say():
    quiet = metrics.events(alarms(), TRUTH, hours=1).set_index("metric")
    assert quiet.loc["found", "value"] == 0
    assert np.isnan(quiet.loc[["precision", "delay"], "value"].astype(float)).all()
    empty = metrics.events(alarms(5), TRUTH[:0], hours=1).set_index("metric")
    assert np.isnan(empty.loc["found", "value"])
    assert empty.loc["false_alarms_per_hour", "value"] == 1


def test_what_a_stream_gives_is_scored():
    class Answer:
        def __init__(self, label):
            self.label, self.probabilities = label, {"normal": float(label == "normal"), "bag": float(label == "bag")}

    frames = [np.full((4, 4, 3), 10 <= number < 20, np.uint8) for number in range(40)]
    watched = serving.stream(frames, lambda image: Answer("bag" if image[0, 0, 0] else "normal"), suspicious=["bag"])
    assert len(list(watched)) == 40
    raised = watched.events()
    raised = raised.assign(seconds=raised["frame"] * 2)
    matched = metrics.match_events(raised, pd.DataFrame({"label": ["bag"], "begin": [20], "end": [40]}))
    assert matched[["result", "delay", "called"]].values.tolist() == [["found", 4.0, "bag"]]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"alarms": [5]}, TypeError, "`alarms` to be a table"),
        ({"truth": None}, TypeError, "`truth` to be a table"),
        ({"alarms": pd.DataFrame({"second": [1]})}, ValueError, "'seconds'"),
        ({"truth": pd.DataFrame({"begin": [1]})}, ValueError, "'end'"),
        ({"alarms": alarms("14:00:02")}, ValueError, "14:00:02"),
        ({"alarms": alarms(pd.Timestamp("2026-01-01 14:00"))}, ValueError, r"2026-01-01 14:00.*total_seconds"),
        ({"truth": TRUTH.assign(end=pd.to_timedelta(TRUTH["end"], unit="s"))}, ValueError, "Row 0 has 0 days 00:02:30"),
        ({"alarms": alarms(True, False)}, ValueError, "Row 0 has True"),
        ({"alarms": alarms(5, True)}, ValueError, "Row 1 has True"),
        ({"alarms": alarms(1.0, np.nan)}, ValueError, "Row 1 has nan"),
        ({"truth": TRUTH.rename(columns={"begin": "end", "end": "begin"})}, ValueError, "swapped"),
        ({"tolerance": -1}, ValueError, "tolerance"),
        ({"tolerance": "5"}, ValueError, "'5'"),
        ({"hours": 0}, ValueError, "above 0"),
        ({"hours": np.inf}, ValueError, "inf"),
        ({"hours": 0.01}, ValueError, "60 seconds"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_a_sentence(arguments, error, words):
    with pytest.raises(error, match=words):
        metrics.events(**({"alarms": alarms(5), "truth": TRUTH, "hours": 1} | arguments))


def test_the_line_of_time_shows_what_was_matched():
    matched = metrics.match_events(alarms(90, 110, 305), TRUTH)
    ax = plots.events(matched)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["false alarm", "bag", "climbing", "lying"]
    ticks = {line.get_label(): list(line.get_xdata()) for line in ax.get_lines()}
    assert ticks["first alarm"] == pytest.approx([110 / 60, 305 / 60])
    assert ticks["false (1)"] == pytest.approx([1.5])
    assert {text.get_text() for text in ax.get_legend().get_texts()} >= {"found (2)", "missed (2)"}
    assert plots.events(metrics.match_events(alarms(), TRUTH[:0])).get_legend() is not None
    with pytest.raises(ValueError, match="expects a column 'label'"):
        plots.events(matched.drop(columns="label"))
