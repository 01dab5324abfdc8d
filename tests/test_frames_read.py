"""Clips from files and arrays: what is read, and what is refused with the file and the last good frame."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from carousel.errors import CarouselError, DataError
from carousel.inputs.frames import BadFrame, Frames, FramesInput, Picture, prepare
from carousel.inputs.frames_decode import Store, decode_all
from carousel.inputs.frames_files import read_clip
from carousel.inputs.roles import Roles

av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")
render = pytest.importorskip("carousel.render")

GREY = Picture((16, 16), 1)


def ramp(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Frames whose brightness says which one it is: t * 8 everywhere, with a white left half."""
    made = np.zeros((count, height, width, 3), np.uint8)
    made[:] = (np.arange(count) * 8)[:, None, None, None]
    made[:, :, : width // 2] = 255
    return made


@pytest.fixture
def video(tmp_path: Path) -> Path:
    render.encode(iter(ramp(20)), tmp_path / "v.mp4", 10)
    return tmp_path / "v.mp4"


def images(folder: Path, count: int = 5) -> Path:
    folder.mkdir()
    for k in range(count):
        Image.fromarray(np.full((20, 30), 10 * k, np.uint8)).save(folder / f"frame{k + 6}.png")
    return folder


def test_a_video_is_read_frame_by_frame_with_its_clock(video):
    found = list(read_clip(video, Picture((32, 48), 3)))
    assert [frame.number for frame in found] == list(range(20))
    assert found[7].seconds == pytest.approx(0.7)
    for t, frame in enumerate(found):
        assert frame.picture.shape == (32, 48, 3)
        assert abs(frame.picture[:, 32:].astype(int) - 8 * t).max() <= 6  # H.264 loses a little
        assert frame.picture[:, :16].min() >= 249


def test_rate_and_every_thin_out_frames(video):
    assert [f.number for f in read_clip(video, Picture((16, 16), 1, every=6))] == [0, 6, 12, 18]
    assert [f.number for f in read_clip(video, Picture((16, 16), 1, rate=2.5))] == [0, 4, 8, 12, 16]
    assert [f.number for f in read_clip(video, Picture((16, 16), 1, rate=4.0))] == [0, 3, 5, 8, 10, 13, 15, 18]
    assert len(list(read_clip(video, Picture((16, 16), 1, rate=100.0)))) == 20  # never more than there are


def test_images_are_sorted_as_people_count(tmp_path):
    folder = images(tmp_path / "clip")  # frame6 ... frame10, whose text sorts frame10 first
    (folder / "notes.txt").write_text("not an image")
    assert [int(f.picture[0, 0, 0]) for f in read_clip(folder, GREY)] == [0, 10, 20, 30, 40]


def test_arrays_of_all_kinds_give_the_same_bytes(tmp_path):
    whole = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "bytes.npy", whole)
    np.save(tmp_path / "deep.npy", whole.astype(np.uint16) * 257)
    np.save(tmp_path / "share.npy", (whole / 255).astype(np.float32))
    np.save(tmp_path / "wide.npy", whole.astype(np.int64))
    np.savez_compressed(tmp_path / "packed.npz", whole)
    np.savez(tmp_path / "named.npz", other=np.zeros(3), frames=whole)
    for name in ("bytes.npy", "deep.npy", "share.npy", "wide.npy", "packed.npz", "named.npz"):
        found = np.stack([f.picture for f in read_clip(tmp_path / name, Picture((16, 16), 3))])
        np.testing.assert_array_equal(found, whole, err_msg=name)


def test_pictures_of_all_modes(tmp_path):
    """Grey, 16-bit, transparent and indexed images in one folder look alike; Pillow alone would cut 16 bits at 255."""
    folder = tmp_path / "modes"
    folder.mkdir()
    value = np.full((16, 16), 100, np.uint8)
    Image.fromarray(value).save(folder / "a.png")
    Image.fromarray(value.astype(np.uint16) * 257).save(folder / "b.png")
    Image.fromarray(np.repeat(value[..., None], 3, 2)).save(folder / "c.png")
    clear = np.dstack([np.full((16, 16, 3), 200, np.uint8), np.full((16, 16), 128, np.uint8)])
    Image.fromarray(clear).save(folder / "d.png")  # 200 at half over black
    Image.fromarray(value).convert("P").save(folder / "e.png")
    Image.fromarray(value > 50).save(folder / "f.png")
    found = [int(f.picture[3, 3, 0]) for f in read_clip(folder, GREY)]
    assert found == [100, 100, 100, 100, 100, 255]


def test_grey_is_weighed_and_the_crop_is_central():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    assert prepare(red, Picture((4, 4), 1))[0, 0, 0] == 60  # 0.299 * 200
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 255
    assert prepare(wide, Picture((4, 4), 1, "centre")).min() == 255
    assert prepare(wide, Picture((4, 4), 1)).min() == 0


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (np.zeros((3, 4, 5)), "shape"),
        (np.zeros((0, 4)), "shape"),
        (np.full((4, 4), np.nan), "finite"),
        (np.full((4, 4), 1.5), r"0 \.\.\. 1"),
        (np.full((4, 4), 300), r"0 \.\.\. 255"),
        (np.full((4, 4), "x"), "numbers were expected"),
    ],
)
def test_what_is_no_picture_is_refused(raw, why):
    with pytest.raises(BadFrame, match=why):
        prepare(raw, GREY)


def test_a_corrupt_image_in_the_middle_is_named_or_skipped(tmp_path):
    folder = images(tmp_path / "clip")
    (folder / "frame8.png").write_bytes((folder / "frame8.png").read_bytes()[:40])
    with pytest.raises(
        DataError, match=r"frame8\.png is no readable image.*; frame 1 is the last good one; .*skip_bad"
    ):
        list(read_clip(folder, GREY))
    faults: list[str] = []
    found = list(read_clip(folder, GREY, faults.append))
    assert [f.number for f in found] == [0, 1, 3, 4]
    assert len(faults) == 1
    assert "frame8.png" in faults[0]


def test_a_changing_size_is_refused(tmp_path):
    folder = images(tmp_path / "clip")
    Image.fromarray(np.zeros((10, 30), np.uint8)).save(folder / "frame9.png")
    with pytest.raises(DataError, match=r"10 x 30, where the first frame has 20 x 30.*frame 2 is the last good one"):
        list(read_clip(folder, GREY))


def test_a_truncated_video_names_the_last_good_frame(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    place = tmp_path / "cut.mkv"  # its header comes first, so that what was written can be read
    render.encode(iter(noise), place, 10)
    place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])
    faults: list[str] = []
    try:
        found = list(read_clip(place, GREY, faults.append))
    except DataError:
        found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = len(found)
    assert 0 < kept < 40


def test_an_mp4_that_was_cut_off_is_refused(video):
    video.write_bytes(video.read_bytes()[:400])
    with pytest.raises(DataError, match=r"v\.mp4: the file cannot be read as a video \(.*\); check its contents"):
        list(read_clip(video, GREY))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.mp4", b"", "cannot be read as a video"),
        ("a.mp4", b"this is text, not a video" * 20, "cannot be read as a video"),
        ("a.npy", b"", "the file is empty"),
        ("a.npy", b"\x93NUMPY\x01\x00garbage", "cannot be read as an array"),
        ("a.npz", b"PK\x03\x04garbage", "cannot be read as an array"),
    ],
)
def test_unreadable_files_are_refused_by_name(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=why) as told:
        list(read_clip(tmp_path / name, GREY))
    assert name in str(told.value)


def test_clips_without_frames_are_refused(tmp_path):
    np.save(tmp_path / "none.npy", np.zeros((0, 4, 4), np.uint8))
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "flat.npy", np.zeros((4, 4), np.uint8))
    for name, why in (
        ("none.npy", "no frames"),
        ("empty", "holds no images"),
        ("flat.npy", "shape"),
        ("gone", "no such"),
    ):
        with pytest.raises(DataError, match=why):
            list(read_clip(tmp_path / name, GREY))


def test_pickles_are_never_read(tmp_path):
    np.save(tmp_path / "p.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as an array"):
        list(read_clip(tmp_path / "p.npy", GREY))


def test_rate_of_a_clip_without_a_clock_is_refused(tmp_path):
    with pytest.raises(DataError, match="no clock"):
        list(read_clip(images(tmp_path / "clip"), Picture((4, 4), 1, rate=2.0)))


def test_workers_give_what_one_process_gives(tmp_path, video):
    places = [str(video), str(images(tmp_path / "clip")), str(tmp_path / "x.npy"), str(images(tmp_path / "other", 3))]
    np.save(places[2], ramp(7)[..., 0])
    own, crew = (decode_all(places, Frames(size=16, workers=n)) for n in (0, 2))
    for a, b in zip(own, crew, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.diff(own.offsets).tolist() == [20, 5, 7, 3]
    assert own.seconds[3] == pytest.approx(0.3)
    assert np.isnan(own.seconds[20:]).all()


def test_faults_of_workers_are_raised_here_and_skipped_there(tmp_path, video):
    places = [str(video), str(tmp_path / "bad.mp4"), str(images(tmp_path / "clip"))]
    Path(places[1]).write_bytes(b"nothing" * 50)
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"bad\.mp4: the file cannot be read"):
            decode_all(places, Frames(size=16, workers=workers))
        found = decode_all(places, Frames(size=16, workers=workers, skip_bad=True))
        assert found.kept.tolist() == [0, 2]
        assert found.offsets.tolist() == [0, 20, 25]
        assert len(found.frames) == len(found.numbers) == 25
        assert [clip for clip, _ in found.faults] == [1]
    with pytest.raises(DataError, match=r"bad\.mp4"):
        decode_all(places[1:2], Frames(size=16, skip_bad=True))


def test_the_store_moves_to_a_file_and_forgets_bad_clips():
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8) for n in (3, 5, 2, 4)]
    for limit in (1 << 20, 60, 1):
        store = Store((4, 4, 1), limit)
        for k, part in enumerate(parts):
            store.add(part)
            if k == 2:
                store.drop(7)  # all of the second and third part
        found = store.frozen()
        assert isinstance(found, np.memmap) == (limit < 1 << 20)
        np.testing.assert_array_equal(found, np.concatenate([parts[0], parts[3]]))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"size": 0}, "size"),
        ({"crop": "left"}, "crop"),
        ({"every": 0}, "every"),
        ({"rate": -1.0}, "rate"),
        ({"every": 2, "rate": 3.0}, "one of them"),
        ({"filters": ()}, "filters"),
        ({"size": 4, "filters": (8,) * 5}, "to nothing"),
        ({"features": 0}, "features"),
        ({"shift": 0.7}, "shift"),
        ({"workers": -1}, "workers"),
        ({"cache": 0}, "cache"),
    ],
)
def test_choices_out_of_range_are_refused(given, why):
    with pytest.raises(ValueError, match=why):
        Frames(**given)
    with pytest.raises(CarouselError, match="name of a column"):
        Frames.of(7)  # type: ignore[arg-type]


def test_the_encoder_counts_its_weights():
    seen = FramesInput(Roles("clip"), Picture((15, 20), 3), (0.5,) * 3, (0.2,) * 3, (8, 16), 10)
    assert seen.grid == (4, 5)
    assert seen.shapes()["out.weight"] == (10, 16 * 4 * 5)
    assert seen.shapes()["convolutions.1.weight"] == (16, 8, 3, 3)
