"""Frames that keep coming: nothing is lost without being counted, nothing breaks the loop, memory stays flat."""

import os
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnlab import serving
from cnnlab.serving import Prediction


def model(image):
    """A stand-in: an array's first number is the probability of "bad"."""
    if not isinstance(image, np.ndarray):
        raise TypeError("no array")
    bad = float(image.flat[0])
    probabilities = {"good": 1 - bad, "bad": bad}
    return Prediction(max(probabilities, key=probabilities.get), max(bad, 1 - bad), probabilities)


def frame(bad=0.0):
    return np.full((2, 2, 3), bad, np.float32)


@pytest.fixture(scope="module")
def predictor(digits_model, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "digits"
    serving.export(digits_model, folder, formats=["litert"], check=digits[digits["split"] == "val"])
    return serving.Predictor(folder)


def test_a_list_loses_nothing(predictor, digits):
    paths = digits["path"].head(50).tolist()
    frames = serving.stream(paths, predictor)
    found = list(frames)
    assert [one.number for one in found] == list(range(50))
    assert [one.label for one in found] == [predictor(path).label for path in paths]
    assert [one.image for one in found] == paths
    assert [one.confidence for one in found] == pytest.approx([predictor(path).confidence for path in paths])
    summary = frames.summary().iloc[0]
    assert (summary["frames"], summary["answered"], summary["dropped"], summary["unreadable"]) == (50, 50, 0, 0)
    assert summary["ended"] == "the source ended"
    assert 0 < summary["model_p50_ms"] <= summary["p50_ms"] <= summary["p95_ms"] <= summary["p99_ms"]


def test_a_table_and_an_array_are_sources(predictor, digits):
    assert len(list(serving.stream(digits.head(5), predictor))) == 5
    assert len(list(serving.stream(np.zeros((4, 8, 8, 3), np.uint8), predictor))) == 4


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8)])
@pytest.mark.parametrize("kind", [np.asarray, tf.constant])
def test_one_image_is_not_taken_for_frames(shape, kind):
    with pytest.raises(ValueError, match=r"several frames.*the shape \(8, 8.*`stream\(\[image\], predictor\)`"):
        serving.stream(kind(np.zeros(shape, np.uint8)), model)


def test_the_oldest_is_dropped_when_the_model_is_slower():
    def source():
        for number in range(60):
            time.sleep(0.002)
            yield frame(number / 100)

    def slow(image):
        time.sleep(0.02)
        return model(image)

    frames = serving.stream(source(), slow, queue=3)
    found = list(frames)
    numbers = [one.number for one in found]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 59  # the newest is never the one that is dropped
    assert frames.dropped > 20
    assert frames.answered + frames.dropped == frames.frames == 60
    assert all(one.probabilities["bad"] == pytest.approx(one.number / 100) for one in found)
    assert all(one.milliseconds < 500 for one in found)


@pytest.mark.parametrize("kind", ["generator", "iterator", "map", "paths"])
def test_an_iterator_waits_and_loses_nothing(kind, tmp_path):
    """Files in an iterator are not a camera: none of them is dropped while the model is slow."""
    frames = [frame(number / 20) for number in range(12)]
    for number, one in enumerate(frames):
        np.save(tmp_path / f"{number:02d}.npy", one)
    source = {
        "generator": (one for one in frames),
        "iterator": iter(frames),
        "map": map(np.load, sorted(tmp_path.glob("*.npy"))),
        "paths": iter(sorted(tmp_path.glob("*.npy"))),
    }[kind]

    def slow(image):
        time.sleep(0.01)
        return model(image if isinstance(image, np.ndarray) else np.load(image))

    watched = serving.stream(source, slow)
    assert [one.number for one in watched] == list(range(12))
    assert watched.dropped == 0


@pytest.mark.parametrize("make", [list, tuple, set, iter, lambda names: (name for name in names)])
def test_suspicious_labels_may_come_in_any_iterable(make):
    found = serving.stream([frame(0.9)] * 4, model, suspicious=make(["bad"]), event=(2, 2))
    assert [one.suspicious for one in found] == [True] * 4
    assert found.summary()["events"][0] == 1


def test_a_queue_of_0_makes_the_source_wait():
    def slow(image):
        time.sleep(0.002)
        return model(image)

    frames = serving.stream((frame() for _ in range(60)), slow, queue=0)
    assert len(list(frames)) == 60
    assert frames.dropped == 0


@given(
    bad=st.lists(st.booleans(), min_size=1, max_size=60),
    rule=st.tuples(st.integers(1, 6), st.integers(1, 6)).map(sorted),
)
@settings(max_examples=40, deadline=None)
def test_an_event_is_k_of_n(bad, rule):
    k, n = rule
    found = list(serving.stream([frame(0.9 * one) for one in bad], model, suspicious=["bad"], event=(k, n)))
    alarms = [sum(bad[max(0, place - n + 1) : place + 1]) >= k for place in range(len(bad))]
    assert [one.suspicious for one in found] == bad
    assert [one.alarm for one in found] == alarms
    assert [one.event for one in found] == [now and not before for now, before in zip(alarms, [False, *alarms])]  # noqa: B905


def test_events_are_told_afterwards():
    bad = [0, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0]
    frames = serving.stream([frame(0.9 * one) for one in bad], model, suspicious=["bad"], event=(3, 3))
    for _ in frames:
        pass
    assert frames.events()["frame"].tolist() == [3, 10]
    assert frames.events()["label"].tolist() == ["bad", "bad"]
    assert (frames.events()["lasted"] >= 0).all()
    assert frames.summary()["events"][0] == 2


def test_smoothing_is_the_mean_of_the_last_frames():
    bad = np.random.default_rng(0).uniform(size=30)
    found = list(serving.stream([frame(one) for one in bad], model, smoothing=4))
    expected = [bad[max(0, place - 3) : place + 1].mean() for place in range(30)]
    assert [one.probabilities["bad"] for one in found] == pytest.approx(expected, abs=1e-6)
    assert [one.label for one in found] == ["bad" if value > 0.5 else "good" for value in expected]


def test_a_rule_or_an_unknown_image_is_suspicious_too():
    found = list(serving.stream([frame(0.1), frame(0.45)], model, suspicious=lambda one: one.confidence < 0.6))
    assert [one.suspicious for one in found] == [False, True]
    frames = serving.stream([frame()] * 3, lambda image: model(image)._replace(unknown=True), event=(2, 2))
    assert [one.suspicious for one in frames] == [True] * 3
    assert frames.events()["label"].tolist() == ["unknown"]


def test_garbage_is_counted_and_passed_over(predictor, digits, tmp_path):
    path = digits["path"].iloc[0]
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff" + b"\x00" * 20)
    garbage = [
        None,
        b"",
        b"noise",
        12,
        "no/such.png",
        tmp_path / "cut.jpg",
        np.zeros((3, 3)) - 5,
        np.zeros(4),
        object(),
    ]
    frames = serving.stream([path, *garbage, path], predictor)
    with pytest.warns(UserWarning, match=r"9 of 11 frames could not be read; the last: TypeError: .*object"):
        found = list(frames)
    assert [one.number for one in found] == [0, 10]
    assert frames.unreadable == 9


def test_a_source_that_breaks_ends_the_loop_with_a_warning():
    def source():
        yield frame()
        raise OSError("the cable is out")

    frames = serving.stream(source(), model, queue=0)
    with pytest.warns(UserWarning, match="After 1 frames the source broke: OSError: the cable is out"):
        assert len(list(frames)) == 1


def test_a_source_that_stutters_is_asked_again():
    class Stutters:
        def __init__(self):
            self.calls = 0

        def __iter__(self):
            return self

        def __next__(self):
            self.calls += 1
            if self.calls > 31:
                raise StopIteration
            if self.calls % 3 == 0:
                raise OSError("for a moment")
            return frame()

    assert len(list(serving.stream(Stutters(), model, queue=0))) == 21


def test_a_source_that_hangs_holds_nobody_up():
    hung = threading.Event()

    def source():
        yield frame()
        hung.wait(20)

    frames = serving.stream(source(), model, patience=0.3)
    began = time.perf_counter()
    assert len(list(frames)) == 1
    assert time.perf_counter() - began < 5
    assert frames.ended == "no frame for 0.3 seconds"
    hung.set()


def test_leaving_the_loop_stops_the_source():
    given_out = []

    def source():
        number = 0
        while True:
            given_out.append(number)
            number += 1
            time.sleep(0.001)
            yield frame()

    frames = serving.stream(source(), model)
    for one in frames:
        if one.number >= 5:
            break
    assert frames.ended == "the loop was left"
    time.sleep(0.3)
    before = len(given_out)
    time.sleep(0.1)
    assert len(given_out) == before
    assert not [thread for thread in threading.enumerate() if thread.name == "cnnlab-stream" and thread.is_alive()]
    with pytest.raises(RuntimeError, match="runs once"):
        next(iter(frames))


def test_a_folder_that_grows(predictor, tmp_path):
    def save(name, level):
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(tmp_path / name)

    save("b.png", 0)
    save("a.png", 0)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"no image")

    def write():
        time.sleep(0.5)
        save("0.png", 50)
        with (tmp_path / "c.png").open("wb") as file:  # written slowly
            data = (tmp_path / "0.png").read_bytes()
            for start in range(0, len(data), 20):
                file.write(data[start : start + 20])
                file.flush()
                time.sleep(0.02)
        time.sleep(0.5)
        save("a.png", 200)  # written anew

    writer = threading.Thread(target=write)
    writer.start()
    frames = serving.stream(tmp_path, predictor, patience=2)
    found = [Path(one.image).name for one in frames]
    writer.join()
    assert sorted(found[:2]) == ["a.png", "b.png"]
    assert found[2:] == ["0.png", "c.png", "a.png"]
    assert (frames.unreadable, frames.dropped) == (0, 0)


def write_video(path, levels):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 32))
    for level in levels:
        writer.write(np.full((32, 32, 3), (0, 0, level), np.uint8))  # OpenCV writes blue, green, red
    writer.release()


def test_a_video_file_gives_rgb_frames(tmp_path):
    write_video(tmp_path / "a.avi", range(0, 250, 10))
    frames = serving.stream(tmp_path / "a.avi", lambda image: model(image[:1, :1] / 255.0))
    reds = [one.probabilities["bad"] * 255 for one in frames]
    np.testing.assert_allclose(reds, range(0, 250, 10), atol=6)


def test_a_video_with_a_queue_plays_at_its_own_speed(tmp_path):
    write_video(tmp_path / "a.avi", range(10))
    began = time.perf_counter()
    frames = serving.stream(tmp_path / "a.avi", lambda image: model(image[:1, :1] / 255.0), queue=2)
    assert len(list(frames)) + frames.dropped == 10
    assert time.perf_counter() - began >= 0.35


class FakeCamera:
    """Gives a few frames, then fails until it is opened again."""

    opened = released = 0

    def __init__(self, name):
        type(self).opened += 1
        self.left = 4

    def isOpened(self):
        return True

    def read(self):
        self.left -= 1
        return (True, np.full((2, 2, 3), (0, 0, 255), np.uint8)) if self.left >= 0 else (False, None)

    def release(self):
        type(self).released += 1
        self.left = 0


def test_a_camera_that_stops_is_opened_again(monkeypatch):
    from cnnlab.serving import sources

    monkeypatch.setattr(sources, "_capture", FakeCamera)
    monkeypatch.setattr(sources, "RETRY", 0.01)
    frames = serving.stream(0, lambda image: model(image / 255.0), queue=50)
    for one in frames:
        assert one.probabilities["bad"] == 1  # red came first: RGB
        if one.number >= 10:
            break
    assert FakeCamera.opened >= 3
    assert frames.summary()["source"][0] == "camera 0"


@pytest.mark.parametrize("way", ["close", "with", "loop", "break", "other thread"])
def test_a_camera_is_let_go(monkeypatch, way):
    from cnnlab.serving import sources

    class Camera(FakeCamera):
        opened = released = 0

        def read(self):
            time.sleep(0.002)
            return True, np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(sources, "_capture", Camera)
    others = set(threading.enumerate())  # of tests before, which may take a moment to end
    watched = serving.stream(0, model)
    assert (Camera.opened, Camera.released) == (1, 0)
    if way == "close":  # never iterated
        watched.close()
    elif way == "with":
        with watched as frames:
            running = iter(frames)
            assert next(running).label == "good"
    elif way == "loop":
        for one in watched:
            if one.number > 3:
                watched.close()
    elif way == "break":
        for _ in watched:
            break
    else:
        threading.Timer(0.2, watched.close).start()
        for _ in watched:
            pass
    watched.close()  # twice does no harm
    assert Camera.released >= 1
    assert watched.ended == ("the loop was left" if way == "break" else "the stream was closed")
    with pytest.raises(RuntimeError, match="not after it was closed"):
        next(iter(watched))
    assert not [one for one in threading.enumerate() if one.name == "cnnlab-stream" and one not in others]


def test_a_pipe_in_a_folder_holds_nobody_up(predictor, tmp_path):
    os.mkfifo(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    assert [Path(one.image).name for one in serving.stream(tmp_path, predictor, patience=1.5)] == ["b.png"]


def test_what_is_no_source_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for source, error, words in (
        (tmp_path / "nowhere", FileNotFoundError, "nowhere"),
        (tmp_path / "a.mp4", ValueError, "as a video"),
        (b"bytes", TypeError, "Received: bytes"),
        (None, TypeError, "Received: NoneType"),
        (True, TypeError, "Received: bool"),
        (977, ValueError, "camera 977 could not be opened"),
    ):
        with pytest.raises(error, match=words):
            serving.stream(source, model)


def test_a_password_in_an_address_is_not_shown():
    with pytest.raises(ValueError, match="rtsp://127") as caught:
        serving.stream("rtsp://me:secret@127.0.0.1:9/none", model)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"suspicious": "bad"}, TypeError, "a list of labels"),
        ({"suspicious": ["1x"]}, ValueError, "expects classes of the predictor"),
        ({"event": (4, 3)}, ValueError, "1 ≤ k ≤ n"),
        ({"event": (0, 3)}, ValueError, "1 ≤ k ≤ n"),
        ({"smoothing": 0}, ValueError, "smoothing=0"),
        ({"queue": -1}, ValueError, "queue=-1"),
        ({"patience": 0}, ValueError, "above 0, or None"),
    ],
)
def test_impossible_arguments_are_refused(predictor, digits_model, arguments, error, words):
    with pytest.raises(error, match=words):
        serving.stream([], predictor, **arguments)
    with pytest.raises(TypeError, match=r"a serving\.Predictor"):
        serving.stream([], "predictor")
    with pytest.raises(TypeError, match=r"serving\.export"):
        serving.stream([], digits_model)


def many(predictor, count):
    """Runs `count` frames, some of them garbage, and gives megabytes before and after."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (64, 8, 8, 3)).astype(np.uint8)

    def source():
        for number in range(count):
            yield b"garbage" if number % 1000 == 7 else pictures[number % 64].copy()

    frames = serving.stream(source(), predictor, suspicious=["3"], queue=0)
    before = None
    for one in frames:
        if one.number == count // 10:
            before = resident()
    return frames, before, resident()


def resident():
    """Megabytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.filterwarnings("ignore:.*could not be read")
def test_memory_is_flat(predictor):
    frames, before, after = many(predictor, 5_000)
    assert (frames.answered, frames.unreadable, frames.dropped) == (4_995, 5, 0)
    assert after - before < 20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.filterwarnings("ignore:.*could not be read")
def test_memory_is_flat_over_100_000_frames(predictor):
    frames, before, after = many(predictor, 100_000)
    print(f"{frames.answered} frames: {before:.1f} → {after:.1f} MB; {frames.summary().to_dict('records')}")
    assert (frames.answered, frames.unreadable) == (99_900, 100)
    assert after - before <= 50
