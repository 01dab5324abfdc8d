"""Clips on the command line, from a table of files to drawn videos; and every fault as one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from carousel import cli
from command_line import Result

av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")
render = pytest.importorskip("carousel.render")

QUICK = ["--size=16", "--grey", "--set=hidden_size=4", "--set=evaluate_every=2", "--set=warmup=1", "--set=batch_size=4"]
SHORT = ["--set=steps=4", "--set=least_steps=4"]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def run(*words: str) -> Result:
        capfd.readouterr()
        status = cli.run(list(words))
        return Result(status, *capfd.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six clips: videos, arrays and a folder of images, in a table beside them; and another table, of frames."""
    rng = np.random.default_rng(0)
    names = ["a.mp4", "b.mp4", "c.npy", "d.npy", "e", "f.mp4"]
    place = tmp_path / "data"
    place.mkdir()
    for name in names:
        clip = rng.integers(0, 256, (14, 32, 32, 3), dtype=np.uint8)
        if name.endswith(".mp4"):
            render.encode(iter(clip), place / name, 10)
        elif name.endswith(".npy"):
            np.save(place / name, clip)
        else:
            (place / name).mkdir()
            for t, picture in enumerate(clip):
                Image.fromarray(picture).save(place / name / f"{t}.png")
    table = pl.DataFrame({"path": names, "way": ["left", "right"] * 3})
    table.write_csv(place / "clips.csv")
    rows = [(name, t, way) for name, way in table.iter_rows() for t in (0, 7)]
    pl.DataFrame(rows, schema=["path", "frame", "way"], orient="row").write_csv(place / "frames.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fitted(call: Callable[..., Result], task: str, *more: str, data: str = "data/clips.csv") -> None:
    found = call("fit", task, data, "--frames=path", "--out=m.safetensors", *QUICK, *SHORT, *more)
    assert found.status == 0, found.err


def frames_of(video: Path) -> int:
    with av.open(str(video)) as opened:
        return sum(1 for _ in opened.decode(video=0))


def test_classify_predict_and_render(folder, call):
    fitted(call, "classify", "--target=way", "--encoder=4,8")
    (folder / "drawn").mkdir()
    found = call("predict", "m.safetensors", "data/clips.csv", "--out=p.csv", "--render=drawn", "--json")
    assert found.status == 0, found.err
    made = pl.read_csv(folder / "p.csv")
    assert made.columns == ["path", "prediction", "p_left", "p_right"]
    assert sorted(made["path"]) == ["a.mp4", "b.mp4", "c.npy", "d.npy", "e", "f.mp4"]
    videos = sorted((folder / "drawn").iterdir())
    assert [video.name[5:] for video in videos] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4", "f.mp4"]
    assert all(frames_of(video) == 14 for video in videos)
    one = call("predict", "m.safetensors", "data/e")
    assert one.out.startswith("path,prediction")


def test_tag_each_frame_and_draw_it(folder, call):
    fitted(call, "tag", "--target=way", "--time=frame", "--encoder=4,8", data="data/frames.csv")
    found = call("predict", "m.safetensors", "data/f.mp4", "--render=said.mp4")
    assert found.status == 0, found.err
    lines = found.out.splitlines()
    assert lines[0] == "path,frame,seconds,prediction,p_left,p_right"
    assert len(lines) == 15
    assert lines[4].startswith("data/f.mp4,3,0.3,")
    assert frames_of(folder / "said.mp4") == 14


def test_frames_ahead_as_arrays_and_as_a_strip(folder, call):
    fitted(call, "forecast", "--horizon=3", "--context=4")
    found = call("predict", "m.safetensors", "data/clips.csv", "--out=next.npz", "--render=strip.png")
    assert found.status == 0, found.err
    with np.load(folder / "next.npz") as made:
        assert sorted(made.files) == ["a.mp4", "b.mp4", "c.npy", "d.npy", "e", "f.mp4"]
        assert made["a.mp4"].shape == (3, 16, 16, 1)
    with Image.open(folder / "strip.png") as drawn:
        assert drawn.size[0] > 300
    measured = call("evaluate", "m.safetensors", "data/clips.csv", "--out=table.md")
    assert measured.status == 0, measured.err
    assert "last frame" in (folder / "table.md").read_text()
    assert "--out FILE.npz" in call("predict", "m.safetensors", "data/clips.csv").err


def test_odd_frames_are_scored_and_drawn(folder, call):
    fitted(call, "detect")
    found = call("predict", "m.safetensors", "data/a.mp4", "--render=odd.mp4")
    assert found.status == 0, found.err
    assert found.out.splitlines()[0] == "path,frame,seconds,score,anomaly,because"
    assert frames_of(folder / "odd.mp4") == 14


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["fit", "classify", "data/clips.csv", "--frames=place", "--target=way"], "no column 'place'"),
        (["fit", "classify", "data/clips.csv", "--size=9", "--id=path", "--target=way"], "--size is about clips"),
        (["fit", "classify", "data/clips.csv", "--frames=path", "--size=a", "--target=way"], "whole numbers"),
        (["fit", "classify", "data/clips.csv", "--frames=path", "--rate=-1", "--target=way"], "rate must be"),
        (["fit", "classify", "data/clips.csv", "--frames=path", "--crop=left", "--target=way"], "crop must be"),
        (["fit", "classify", "data/clips.csv", "--frames=path", "--features=way", "--target=way"], "features is about"),
        (["fit", "forecast", "data/clips.csv", "--frames=path", "--horizon=30"], "the longest clip has 14"),
        (["fit", "detect", "data/clips.csv", "--frames=path", "--method=autoencoder"], "method='forecast'"),
        (["fit", "classify", "data/clips.csv", "--target=way"], "--frames"),
    ],
)
def test_faults_are_one_sentence_with_status_2(folder, call, words, why):
    found = call(*words, "--out=m.safetensors")
    assert found.status == 2
    assert why in found.err
    assert len(found.err.strip().splitlines()) == 1


def test_bad_clips_stop_the_fit_or_are_skipped_and_counted(folder, call):
    place = folder / "data"
    (place / "a.mp4").write_bytes((place / "a.mp4").read_bytes()[:200])
    (place / "e" / "5.png").write_bytes(b"no image")
    words = ["fit", "classify", "data/clips.csv", "--frames=path", "--target=way", "--out=m.safetensors"]
    found = call(*words, "--encoder=4", *QUICK, *SHORT)
    assert found.status == 2
    assert "a.mp4: the file cannot be read as a video" in found.err
    found = call(*words, "--encoder=4", "--skip-bad", *QUICK, *SHORT)
    assert found.status == 0, found.err
    assert "2 left out as bad" in found.err
    found = call("predict", "m.safetensors", "data/clips.csv", "--skip-bad")
    assert found.status == 0
    assert len(found.out.splitlines()) == 6
    refused = call("predict", "m.safetensors", "data/clips.csv")
    assert refused.status == 2
    gone = call("predict", "m.safetensors", "gone.mp4")
    assert gone.status == 2
    assert "gone.mp4 does not exist" in gone.err


def test_rendering_says_what_it_needs(folder, call):
    fitted(call, "classify", "--target=way", "--encoder=4")
    for words, why in (
        (["data/clips.csv", "--render=x.mp4"], "6 clips to draw"),
        (["data/a.mp4", "--render=x.txt"], "suffix must be"),
        (["data/a.mp4", "--render=nowhere/x.mp4"], "no folder nowhere"),
        (["data/a.mp4", "--future=data/clips.csv"], "--future does not go with models of frames"),
    ):
        found = call("predict", "m.safetensors", *words)
        assert found.status == 2, found.out
        assert why in found.err


def test_captions_are_drawn_where_they_belong(tmp_path):
    black = np.zeros((6, 64, 64, 3), np.uint8)
    np.save(tmp_path / "x.npy", black)
    captions = [render.Caption(2, "jump", 0.5), render.Caption(4, "walk", 1.0, alarm=True)]
    assert render.render(tmp_path / "x.npy", captions, tmp_path / "o.mp4") == 6
    with av.open(str(tmp_path / "o.mp4")) as opened:
        made = [frame.to_ndarray(format="rgb24").astype(int) for frame in opened.decode(video=0)]
    height = made[0].shape[0]
    picture, bar = [m[: height * 9 // 10 - 4] for m in made], [m[height * 9 // 10 + 2 :] for m in made]
    assert bar[0].max() < 80  # nothing is said yet
    assert bar[2].max() > 150
    green = [(b[-3] - b[-3].min(1, keepdims=True))[:, 1] > 40 for b in bar]
    assert green[2].mean() == pytest.approx(0.5, abs=0.06)
    assert green[4].mean() > 0.9
    assert picture[3].max() < 40
    assert picture[4][:, :4, 0].max() > 150  # the red frame of an alarm
    assert render.render(tmp_path / "x.npy", captions[:1], tmp_path / "o.webm") == 6
