"""Models of clips: labels of clips and frames, frames ahead, odd frames; files, streams and bounded memory."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from carousel import Classifier, ClipStream, Detector, Forecaster, Frames, Stream, Tagger
from carousel.datasets import digit_images, digit_order, moving_digits
from carousel.errors import CarouselError, DataError, NotSupported
from carousel.evaluate_detection import evaluate_detection
from carousel.evaluate_frames import evaluate_frames, ssim
from carousel.evaluate_sequences import evaluate
from carousel.framing import predict_ahead, windows
from carousel.heads.frames import block_errors, block_means, block_names
from carousel.inputs.clips import read_pictures

pytest.importorskip("PIL")

SMALL = Frames(size=16, grey=True, filters=(8, 16), features=16, workers=0)


def quick(kind: type, **more: object) -> object:
    settings = {"steps": 60, "least_steps": 60, "hidden_size": 16, "learning_rate": 5e-3, "evaluate_every": 20}
    return dataclasses.replace(kind.frame_defaults, **settings | more)  # type: ignore[attr-defined]


def slides(count: int = 40, seed: int = 0) -> tuple[list[np.ndarray], list[str]]:
    """Clips of 4 to 8 frames of a square that goes right or left; frames alone do not tell which."""
    rng = np.random.default_rng(seed)
    clips, labels = [], []
    for k in range(count):
        length, row = int(rng.integers(4, 9)), int(rng.integers(1, 12))
        clip = np.zeros((length, 16, 16), np.uint8)
        for t in range(length):
            at = (t if k % 2 else length - 1 - t) * 12 // (length - 1)
            clip[t, row : row + 4, at : at + 4] = 255
        clips.append(clip)
        labels.append("right" if k % 2 else "left")
    return clips, labels


@cache
def classifier() -> Classifier:
    return Classifier(frames=SMALL, config=quick(Classifier)).fit(*slides())


@cache
def tagger() -> Tagger:
    clips, labels = slides()
    truth = [[label] * len(clip) for clip, label in zip(clips, labels, strict=True)]
    return Tagger(frames=SMALL, seeds=2, config=quick(Tagger, steps=40)).fit(clips, truth)


@cache
def detector() -> Detector:
    clips = list(moving_digits(12, frames=14, size=16, digits=1, speed=1.0, images=digit_images(side=8)[0]))
    return Detector(frames=SMALL, config=quick(Detector, hidden_size=8, steps=40)).fit(clips)


@cache
def forecaster() -> Forecaster:
    clips = moving_digits(24, frames=12, size=16, digits=1, speed=1.0, images=digit_images(side=8)[0])
    return Forecaster(3, context=5, frames=SMALL, config=quick(Forecaster, hidden_size=8)).fit(list(clips))


def saved(model: object, folder: Path) -> Path:
    model.save(folder / "m.safetensors")  # type: ignore[attr-defined]
    return folder / "m.safetensors"


def test_the_order_of_frames_is_learned_and_kept_in_the_file(tmp_path):
    clips, labels = slides(seed=1)
    assert classifier().score(clips, labels) > 0.9
    again = Classifier.load(saved(classifier(), tmp_path))
    np.testing.assert_array_equal(again.predict_proba(clips), classifier().predict_proba(clips))
    assert dataclasses.replace(again.frames, workers=0).picture == SMALL.picture
    shuffled = [clip[::-1] for clip in clips]
    assert classifier().score(shuffled, labels) < 0.1  # seen backwards every clip is one of the other kind


def test_digits_in_order_hide_their_label_in_the_order_alone():
    clips, labels = digit_order(400, seed=3)
    mixed, same = digit_order(400, seed=3, shuffled=True)
    assert labels == same
    for a, b in zip(clips[:50], mixed[:50], strict=True):
        key = lambda frame: frame.tobytes()  # noqa: E731
        assert sorted(map(key, a)) == sorted(map(key, b))  # the same frames
    assert abs(np.mean([label == "3 first" for label in labels]) - 0.5) < 0.08
    train, test = digit_images("train")[0], digit_images("test")[0]
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


def test_moving_digits_move_on_and_bounce():
    dot = np.full((1, 4, 4), 255, np.uint8)
    clips = moving_digits(6, frames=40, size=16, digits=1, speed=1.5, images=dot, seed=4)
    where = np.array([[np.argwhere(frame).mean(0) for frame in clip] for clip in clips])  # [6, 40, 2]
    steps = np.diff(where, axis=1)
    assert np.abs(steps).max() <= 2
    assert np.hypot(*steps.transpose(2, 0, 1)).mean() == pytest.approx(1.5, abs=0.25)
    assert (clips > 0).sum((2, 3)).min() == 16  # never beyond the edge
    assert np.array_equal(moving_digits(2, seed=9), moving_digits(2, seed=9))


def manifest(folder: Path, count: int = 24) -> pl.DataFrame:
    clips, labels = slides(count)
    for k, clip in enumerate(clips):
        np.save(folder / f"{k}.npy", clip)
    return pl.DataFrame({"clip": [f"{k}.npy" for k in range(count)], "way": labels})


def test_a_table_of_clips_gives_a_table_of_labels(tmp_path):
    table = manifest(tmp_path)
    frames = dataclasses.replace(SMALL, column="clip", root=tmp_path)
    model = Classifier("way", frames=frames, config=quick(Classifier)).fit(table)
    found = model.predict(table)
    assert found.columns == ["clip", "prediction", "p_left", "p_right"]
    assert sorted(found["clip"]) == sorted(table["clip"])
    assert found.join(table, on="clip").select((pl.col("prediction") == pl.col("way")).mean()).item() > 0.9
    with pytest.raises(DataError, match=r"row 2, column 'clip': .*gone\.npy does not exist"):
        model.predict(pl.DataFrame({"clip": ["0.npy", "gone.npy"]}))
    labels = table.select("clip", "way").head(23)
    with pytest.raises(DataError, match=r"sequence '23\.npy'.*no label"):
        Classifier("way", frames=frames, config=quick(Classifier)).fit(table.select("clip"), labels=labels)


def labels_of(model: Tagger, data: pl.DataFrame) -> dict[str, list[str | None]]:
    """What is to be learned of each frame of each clip."""
    clips = model._read_to_fit(data, "way", "data")
    truth = model._truth(clips, None, 0.0)
    names = [None if np.isnan(v) else truth.classes[int(v)] for v in truth.values]
    return {name: names[a:b] for name, a, b in zip(clips.ids, clips.offsets, clips.offsets[1:], strict=False)}


def test_labels_of_frames_by_number_one_by_one_and_for_whole_clips(tmp_path):
    table = manifest(tmp_path, 12)
    lengths = {name: len(np.load(tmp_path / name)) for name in table["clip"]}
    frames = dataclasses.replace(SMALL, column="clip", root=tmp_path)
    rows = [(name, t, f"{way} {t}") for name, way in table.iter_rows() for t in range(lengths[name])]
    every = pl.DataFrame(rows, schema=["clip", "frame", "way"], orient="row")
    model = Tagger("way", time="frame", frames=frames)
    truth = [labels_of(model, data) for data in (every, every.sample(fraction=1.0, shuffle=True, seed=0))]
    assert truth[0] == truth[1]
    sparse = pl.DataFrame({"clip": ["0.npy", "0.npy", "1.npy"], "frame": [1, 3, 0], "way": ["a", "b", "c"]})
    known = labels_of(model, sparse)
    n = lengths["0.npy"]
    assert known["0.npy"] == [None, "a", "a", *["b"] * (n - 3)]  # each holds until the next; before the first: unknown
    assert known["1.npy"] == ["c"] * lengths["1.npy"]
    with pytest.raises(DataError, match=r"row 2: frame 99 is beyond the last frame of '0\.npy'"):
        labels_of(model, pl.DataFrame({"clip": ["0.npy"] * 2, "frame": [0, 99], "way": ["a", "b"]}))
    with pytest.raises(DataError, match="stands twice"):
        labels_of(model, pl.DataFrame({"clip": ["0.npy"] * 2, "frame": [1, 1], "way": ["a", "b"]}))
    with pytest.raises(DataError, match="no number of a frame"):
        labels_of(model, pl.DataFrame({"clip": ["0.npy"], "frame": [-1], "way": ["a"]}))
    with pytest.raises(DataError, match=r"has \d frames and 2 rows"):
        labels_of(Tagger("way", frames=frames), pl.DataFrame({"clip": ["0.npy"] * 2, "way": ["a", "b"]}))


def test_progress_counts_frames_and_predict_needs_no_rows(tmp_path):
    table = manifest(tmp_path, 6)
    model = Tagger(
        "way",
        time="frame",
        frames=dataclasses.replace(SMALL, column="clip", root=tmp_path),
        config=quick(Tagger, steps=4, least_steps=4),
    )
    model.fit(table.with_columns(frame=0))
    told: list[tuple[int, int]] = []
    model.decoding_ = lambda done, total: told.append((done, total))
    sparse = pl.DataFrame({"clip": ["0.npy", "0.npy", "3.npy"]})  # rows that say nothing of frames
    found = model.predict(sparse)
    count = sum(len(np.load(tmp_path / name)) for name in ("0.npy", "3.npy"))
    assert found.height == count
    assert told[-1] == (count, count)
    assert all(done <= total == count for done, total in told)
    assert len(told) > 2  # read, then tagged


def test_a_tagger_is_causal_and_its_table_names_frames(tmp_path):
    clips, _ = slides(seed=2)
    whole = tagger().predict_proba(clips[:6])
    part = tagger().predict_proba([clip[:3] for clip in clips[:6]])
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_allclose(a[:3], b, atol=1e-6)
    np.save(tmp_path / "a.npy", clips[0])
    model = Tagger(
        "way", frames=dataclasses.replace(SMALL, column="clip", root=tmp_path), config=quick(Tagger, steps=20)
    )
    np.save(tmp_path / "b.npy", clips[1])
    table = pl.DataFrame({"clip": ["a.npy", "b.npy"], "way": ["left", "right"]})
    found = model.fit(table).predict(table)
    assert found.columns == ["clip", "frame", "prediction", "p_left", "p_right"]
    assert found["frame"].to_list() == [*range(len(clips[0])), *range(len(clips[1]))]


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
def test_a_stream_of_frames_says_what_the_whole_clip_does(pooling, tmp_path):
    clips, labels = slides(20)
    model = Classifier(frames=SMALL, pooling=pooling, seeds=2, config=quick(Classifier, steps=8, least_steps=8))
    stream = ClipStream(saved(model.fit(clips, labels), tmp_path))
    for clip, expected in zip(clips[:4], model.predict_proba(clips[:4]), strict=True):
        stream.reset()
        for t, frame in enumerate(clip):
            if t == 2:
                kept = stream.state()
                stream.push(clip[0])  # goes astray, and back
                stream.restore(kept)
            said = stream.push(frame)
        assert said["p_left"] == pytest.approx(expected[0], abs=1e-6)


def test_a_convolutional_memory_reads_pieces_and_frames_alike(tmp_path, monkeypatch):
    clips, labels = slides(20)
    frames = dataclasses.replace(SMALL, convlstm=6)
    model = Classifier(frames=frames, pooling="mean", config=quick(Classifier, steps=8, least_steps=8)).fit(
        clips, labels
    )
    whole = model.predict_proba(clips)
    monkeypatch.setattr("carousel.framenet.PIECE", 3)
    monkeypatch.setattr("carousel.framenet.pieces.__defaults__", (3,))
    np.testing.assert_allclose(model.predict_proba(clips), whole, atol=1e-6)
    (member,) = model.model_
    with torch.no_grad():  # a mutant that forgets between pieces is found out
        first, _ = member.input.encode(torch.from_numpy(clips[0][..., None][:3].copy()))
        rest, _ = member.input.encode(torch.from_numpy(clips[0][..., None][3:].copy()))
        right = member.input.encode_clips(clips[0][..., None], np.array([0, len(clips[0])]))
    assert (torch.cat([first, rest]) - right).abs().max() > 1e-4
    stream = ClipStream(saved(model, tmp_path))
    for t, frame in enumerate(clips[1]):
        if t == 2:
            kept, stream = stream.state(), ClipStream(tmp_path / "m.safetensors")
            stream.restore(kept)
        said = stream.push(frame)
    assert said["p_left"] == pytest.approx(whole[1][0], abs=1e-6)
    assert Classifier.load(tmp_path / "m.safetensors").frames.convlstm == 6


def test_streams_of_taggers_and_detectors_equal_their_batches(tmp_path):
    clips, _ = slides(6)
    stream = ClipStream(saved(tagger(), tmp_path))
    for clip, expected in zip(clips, tagger().predict_proba(clips), strict=True):
        stream.reset()
        said = [stream.push(frame)["p_left"] for frame in clip]
        np.testing.assert_allclose(said, expected[:, 0], atol=1e-6)
    stream = ClipStream(saved(detector(), tmp_path))
    clip = moving_digits(1, frames=40, size=16, digits=1, speed=1.0, images=digit_images(side=8)[0], seed=8)[0]
    expected = detector().scores([clip])[0]
    said = []
    for t, frame in enumerate(clip):
        if t in (1, 17):  # in another process
            kept, stream = stream.state(), ClipStream(tmp_path / "m.safetensors")
            stream.restore(kept)
        said.append(stream.push(frame)["score"])
    assert said[0] is None
    assert np.isnan(expected[0])
    np.testing.assert_allclose(said[1:], expected[1:], rtol=1e-5)


def test_streams_refuse_what_they_cannot_take(tmp_path):
    place = saved(classifier(), tmp_path)
    stream = ClipStream(place)
    before = stream.state()
    with pytest.raises(DataError, match=r"frame 0: its shape is \[3\]"):
        stream.push(np.zeros(3))
    assert stream.state() == before
    with pytest.raises(CarouselError, match="damaged"):
        stream.restore(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(CarouselError, match="another model"):
        ClipStream(saved(tagger(), tmp_path)).restore(before)
    with pytest.raises(CarouselError, match="no state"):
        stream.restore(b"")
    with pytest.raises(NotSupported, match="ClipStream"):
        Stream(saved(classifier(), tmp_path))
    with pytest.raises(NotSupported, match="predict"):
        ClipStream(saved(forecaster(), tmp_path))


def test_exports_say_what_they_cannot(tmp_path):
    from carousel import export

    for model, formats in ((classifier(), ("onnx", "c")), (forecaster(), ("onnx", "c", "keras", "flax", "torch"))):
        place = saved(model, tmp_path)
        for to in formats:
            with pytest.raises(NotSupported, match=r"a model of clips has no|convolutional LSTMs"):
                export.write(place, to, tmp_path / f"out{export.FORMATS[to].suffixes[0]}")


def test_every_and_rate_hold_in_streams(tmp_path):
    np.save(tmp_path / "a.npy", slides(2)[0][0])
    np.save(tmp_path / "b.npy", slides(2)[0][1])
    table = pl.DataFrame({"clip": ["a.npy", "b.npy"], "way": ["x", "y"]})
    frames = dataclasses.replace(SMALL, column="clip", root=tmp_path, every=2)
    model = Tagger("way", frames=frames, config=quick(Tagger, steps=8, least_steps=8)).fit(table)
    stream = ClipStream(saved(model, tmp_path))
    said = [stream.push(frame) for frame in np.load(tmp_path / "a.npy")]
    assert [one is not None for one in said] == [t % 2 == 0 for t in range(len(said))]
    expected = model.predict(table).filter(pl.col("clip") == "a.npy")
    assert expected["frame"].to_list() == list(range(0, len(said), 2))
    np.testing.assert_allclose([one["p_x"] for one in said if one], expected["p_x"], atol=1e-6)


def test_frames_ahead_learn_and_are_kept(tmp_path):
    model = forecaster()
    clips = list(moving_digits(10, frames=9, size=16, digits=1, speed=1.0, images=digit_images(side=8)[0], seed=5))
    made = model.predict(clips)
    assert [one.shape for one in made] == [(3, 16, 16, 1)] * 10
    assert made[0].dtype == np.uint8
    again = Forecaster.load(saved(model, tmp_path))
    np.testing.assert_array_equal(np.stack(again.predict(clips)), np.stack(made))
    assert (again.horizon, again.context) == (3, 5)
    found = evaluate_frames(model, clips)
    assert found.of("LSTM")["MSE a frame"] < found.of("last frame")["MSE a frame"]
    truth = np.stack(clips)[:, 6:].astype(float) / 255
    copied = np.stack(clips)[:, 5:6].astype(float) / 255
    assert found.of("last frame")["MSE a frame"] == pytest.approx(((truth - copied) ** 2).sum((2, 3)).mean())
    assert found.of("black")["MSE a pixel"] == pytest.approx((truth**2).mean())
    assert "last frame" in found.markdown()


def test_windows_of_clips_hold_whole_clips_out():
    offsets = np.array([0, 9, 12, 30, 38, 50, 60])
    frames = np.zeros((60, 4, 4, 1), np.uint8)
    found = windows(frames, offsets, 6, 0.34, "X")
    owner = np.searchsorted(offsets, np.arange(60), side="right") - 1
    for starts in (found.learned, found.held):
        assert (owner[starts] == owner[starts + 5]).all()  # of one clip
    assert not set(owner[found.learned]) & set(owner[found.held])
    few = windows(frames[:30], offsets[:4], 6, 0.5, "X")
    seen = {row for start in few.learned for row in range(start, start + 6)}
    assert not seen & {row for start in few.held for row in range(start, start + 6)}
    with pytest.raises(DataError, match="windows of 40 frames are needed, and the longest clip has 18"):
        windows(frames, offsets, 40, 0.2, "X")


def test_the_network_ahead_goes_on_from_its_own_frames():
    """Frames ahead in one go are what repeated steps give, and a clip read in parts is the clip read whole."""
    (member,) = forecaster().model_
    seen = torch.rand(6, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made = member(seen, 3)
        first, states = member.step(seen[:4])
        rest, states = member.step(seen[4:], states)
        torch.testing.assert_close(torch.cat([first, rest]), made[:6], atol=1e-5, rtol=0)
        last = rest[-1:]
        for k in range(2):
            last, states = member.step(torch.sigmoid(last), states)
            torch.testing.assert_close(last[0], made[6 + k], atol=1e-4, rtol=0)


def test_odd_frames_are_found_and_the_place_is_named():
    clips = list(moving_digits(4, frames=12, size=16, digits=1, speed=1.0, images=digit_images(side=8)[0], seed=6))
    usual = np.concatenate(detector().scores(clips))
    assert np.nanmean(usual >= 1) < 0.1
    odd = [clip.copy() for clip in clips]
    odd[2][7, 8:, :8] = 255 - odd[2][7, 8:, :8]  # below, on the left
    scores = detector().scores(odd)
    assert max((s[k], c, k) for c, s in enumerate(scores) for k in range(1, 12))[1:] == (2, 7)
    truth = [np.zeros(12) for _ in odd]
    truth[2][7] = 1
    found = evaluate_detection(detector(), odd, truth)
    assert found.of("LSTM").event_recall == 1


def test_blocks_of_pictures_are_measured():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 10, 7, 2)), rng.random((3, 10, 7, 2))
    found = block_errors(a, b, (2, 3)).reshape(3, 2, 3)
    assert found[1, 1, 2] == pytest.approx(np.sqrt(((a - b)[1, 5:, 4:] ** 2).mean()))
    frames = rng.integers(0, 256, (3, 10, 7, 2), dtype=np.uint8)
    assert block_means(frames, (2, 3))[2, 0] == pytest.approx(frames[2, :5, :2].mean() / 255)
    assert block_names((2, 3))[5] == "row 2 column 3"


def test_structural_similarity_is_that_of_its_paper():
    """A literal restatement: Gaussian windows of 11 x 11, spread 1.5, computed window by window."""
    rng = np.random.default_rng(0)
    a = rng.random((14, 15, 1))
    b = np.clip(a + 0.2 * rng.normal(size=a.shape), 0, 1)
    grid = np.arange(11) - 5
    weight = np.exp(-(grid[:, None] ** 2 + grid[None] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    values = []
    for y in range(4):
        for x in range(5):
            p, q = a[y : y + 11, x : x + 11, 0], b[y : y + 11, x : x + 11, 0]
            mp, mq = (weight * p).sum(), (weight * q).sum()
            vp, vq = (weight * p * p).sum() - mp**2, (weight * q * q).sum() - mq**2
            both = (weight * p * q).sum() - mp * mq
            values.append((2 * mp * mq + 1e-4) * (2 * both + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-9)


def test_evaluation_of_clips_stands_beside_baselines():
    clips, labels = slides(seed=7)
    found = evaluate(classifier(), clips, labels, train=slides()[0], train_y=slides()[1])
    assert found.of("LSTM")["accuracy"] > 0.9
    assert len(found.rows) > 2  # and what sees the brightness of blocks


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"frames": SMALL, "id": "clip"}, "id is about tables of numbers"),
        ({"frames": SMALL, "time": "frame"}, "are arrays"),
        ({"frames": dataclasses.replace(SMALL, every=2)}, "about files"),
        ({"frames": 3}, "name of a column"),
    ],
)
def test_choices_that_do_not_fit_are_refused(given, why):
    with pytest.raises(CarouselError, match=why):
        Classifier(**given).fit(*slides(4))


def test_arrays_that_are_no_clips_are_refused():
    for arrays, why in (
        ([], "no clip"),
        (["x"], "shape"),
        ([np.zeros((0, 4, 4))], "no frames"),
        ([np.zeros((3, 4))], "shape"),
        ([np.full((2, 4, 4), 7.0)], r"X\[0\], frame 0: its numbers lie in 7"),
    ):
        with pytest.raises(DataError, match=why):
            read_pictures(arrays, SMALL)
    cell = dataclasses.replace(Forecaster.frame_defaults.cell, recurrent_dropout=0.2)
    with pytest.raises(CarouselError, match="cells of convolutions know"):
        Forecaster(2, frames=SMALL, config=quick(Forecaster, cell=cell)).fit(slides()[0])


def test_predicting_ahead_does_not_mix_clips():
    model = forecaster()
    clips = list(moving_digits(5, frames=9, size=16, digits=1, images=digit_images(side=8)[0], seed=5))
    clips[3], clips[1] = clips[3][:4], clips[1][:1]  # fewer than the context
    each = [clip[..., None] for clip in clips]
    together = predict_ahead(model.model_, each, 3, 5)
    for k, clip in enumerate(each):
        np.testing.assert_array_equal(together[k], predict_ahead(model.model_, [clip], 3, 5)[0])


MEMORY = """
import resource, sys
import numpy as np, polars as pl
from carousel import Tagger
model = Tagger.load(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = model.predict(pl.DataFrame({"clip": [sys.argv[2]]}))
print(found.height, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_does_not_grow_with_a_clip(tmp_path):
    """600 frames of 320 x 240 in colour are 138 MB of bytes, and more of activations; less than 80 MB are used."""
    render = pytest.importorskip("carousel.render")
    pytest.importorskip("av")
    clips, _ = slides(4)
    for k, clip in enumerate(clips):
        np.save(tmp_path / f"{k}.npy", clip)
    table = pl.DataFrame({"clip": [f"{k}.npy" for k in range(4)], "way": ["a", "b"] * 2})
    frames = dataclasses.replace(SMALL, column="clip", root=tmp_path, workers=None)
    place = saved(Tagger("way", frames=frames, config=quick(Tagger, steps=4, least_steps=4)).fit(table), tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    render.encode((np.roll(picture, t, 1) if t % 40 == 0 else picture for t in range(600)), tmp_path / "long.mp4", 25)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(place), str(tmp_path / "long.mp4")],
        capture_output=True,
        text=True,
        check=True,
    )
    rows, grown = map(int, done.stdout.split())
    assert rows == 600
    assert grown < 80
