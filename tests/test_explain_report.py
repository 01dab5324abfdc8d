"""The report: complete in one file, readable by everyone, without faults in a browser; and its command."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from carousel import Classifier, TrainConfig, cli
from carousel.explain import explain
from carousel.explain.canvas import DARK, LIGHT, Canvas, tinted
from carousel.explain.report import NARROW, WIDE, page
from carousel.explain.scales import Scale, nice_ticks, time_ticks
from command_line import Result, model_bytes, shops, vitals

VOID = {"meta", "link", "br", "image", "rect", "circle", "line", "polyline", "polygon"}
LARGEST = 5_000_000


@pytest.fixture(scope="module")
def found() -> Any:
    config = TrainConfig(steps=4, hidden_size=6, width=0, num_layers=2, warmup=1)
    roles: dict[str, Any] = {"id": "patient", "time": "at", "features": ["pulse", "sex"], "static": ["age"]}
    return explain(
        Classifier("survived", **roles, config=config).fit(vitals()), vitals(), twin_steps=2, source="<v>.csv"
    )


@pytest.fixture(scope="module")
def report(found) -> str:
    return page(found)


class Reader(HTMLParser):
    """Elements in order with their attributes; complains where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, (tag, self.getpos())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


def test_the_page_is_whole_and_asks_for_nothing_from_elsewhere(report):
    assert len(report.encode()) < LARGEST
    read = Reader(report)
    assert not read.all("script")
    targets = [one[name] for _, one in read.seen for name in ("src", "href") if one.get(name)]
    assert all(str(target).startswith(("#", "data:")) for target in targets)
    assert "url(" not in report
    assert "&lt;v&gt;.csv" in report
    assert "<v>.csv" not in report


def test_contents_lead_to_every_section(report):
    read = Reader(report)
    links = [str(one["href"])[1:] for one in read.all("a") if str(one["href"]).startswith("#")]
    sections = [one["id"] for one in read.all("section")]
    assert sections == ["short", "gates", "units", "memory", "gradients", "attribution", "health", "how"]
    assert set(links) == set(sections)
    assert len(read.all("h1")) == 1


def test_every_figure_says_in_words_what_is_to_be_seen_and_has_a_form_for_phones(report):
    read = Reader(report)
    figures, drawn = read.all("figure"), read.all("svg")
    assert len(figures) >= 7
    assert len(drawn) == 2 * len(figures)
    assert [float(str(one["width"])) for one in drawn] == [WIDE, NARROW] * len(figures)
    for one in drawn:
        assert one["role"] == "img"
        assert len(str(one["aria-label"])) > 40
    assert NARROW <= 390 - 2 * 16
    sizes = [float(size) for size in re.findall(r'font-size="([\d.]+)"', report)]
    assert min(sizes) >= 10  # on a phone figures are shown as large as they are drawn


def _luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_stands_out_from_its_paper(palette):
    for name in palette.keys() - {"paper", "wash", "grid"}:
        for paper in ("paper", "wash"):
            bright, dim = sorted((_luminance(palette[name]), _luminance(palette[paper])), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (name, paper)


def test_no_text_of_a_figure_leaves_its_canvas(found):
    from carousel.explain.report import _sections

    for section in _sections(found):
        for figure in section.figures:
            for width in (WIDE, NARROW):
                canvas = figure.draw(found, width)
                for shape in canvas.shapes if canvas else ():
                    if shape.kind != "text":
                        continue
                    x, y, text = shape.at
                    wide = 0.56 * shape.paint["size"] * len(text)  # an ordinary letter's
                    left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[shape.paint["anchor"]]
                    assert left > -6, (figure.name, width, text)
                    assert left + wide < canvas.width + 12, (figure.name, width, text)
                    assert 0 < y <= canvas.height, (figure.name, width, text)


def test_pixels_are_clear_at_zero_and_full_at_one():
    made = tinted(np.array([[0.0, 1.0, -0.5, 7.0, np.nan]]), "cell", "forget")
    assert made[0, :, 3].tolist() == [0, 248, 128, 248, 0]
    assert made[0, 1, :3].tolist() != made[0, 2, :3].tolist()


def test_a_picture_shows_the_same_shapes_as_the_drawing(tmp_path):
    import matplotlib.image

    canvas = Canvas(60, 40, "Shapes.")
    canvas.rect(0, 0, 20, 20, "forget")
    canvas.image(30, 0, 20, 20, tinted(np.ones((2, 2)), "cell"))
    canvas.area([(0, 25), (20, 25), (20, 40), (0, 40)], "input", opacity=1.0)
    canvas.line([(30, 30), (55, 30)], "ink", width=4)
    canvas.circle(55, 10, 4, "output")
    canvas.text(1, 12, "a < b & c")
    canvas.png(tmp_path / "a.png")
    pixels = (matplotlib.image.imread(tmp_path / "a.png")[..., :3] * 255).round().astype(int)
    assert pixels.shape == (80, 120, 3)

    def colour(name: str) -> list[int]:
        return [int(LIGHT[name][k : k + 2], 16) for k in (1, 3, 5)]

    for x, y, name in ((16, 17, "forget"), (10, 35, "input"), (40, 30, "ink"), (55, 10, "output"), (25, 5, "paper")):
        assert np.abs(pixels[2 * y, 2 * x] - colour(name)).max() <= 2, name
    assert "a &lt; b &amp; c" in canvas.svg()
    assert canvas.svg(alone=True).startswith("<svg xmlns=")


def test_ticks_are_round_and_inside():
    assert nice_ticks(-0.3, 1.2) == [0.0, 0.5, 1.0]
    assert Scale(2, 4, 100, 0)(3) == 50
    labels = [label for _, label in time_ticks(1_700_000_000.0, 1_700_050_000.0, 6)]
    assert labels == ["00:00", "03:00", "06:00", "09:00", "12:00"]


def test_the_figures_of_the_docs_are_those_that_the_script_draws():
    place = Path(__file__).parent.parent / "docs" / "figures.py"
    spec = importlib.util.spec_from_file_location("docs_figures", place)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name in ("cell", "counter", "factors"):
        kept = (place.parent / "images" / f"inside-{name}.svg").read_text()
        assert kept == getattr(script, name)().svg(alone=True) + "\n", f"run python docs/figures.py: {name} has changed"
    page_ = (place.parent / "inside.md").read_text()
    for name in re.findall(r"images/(inside-[\w-]+\.svg)", page_):
        assert (place.parent / "images" / name).exists(), name


# The command.


@pytest.fixture
def call(capsys):
    def run(*arguments: object) -> Result:
        capsys.readouterr()
        status = cli.run([str(a) for a in arguments])
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    shops().write_csv(tmp_path / "data.csv")
    (tmp_path / "m.safetensors").write_bytes(model_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_writes_report_and_pictures_and_says_what_it_found(place, call):
    done = call("explain", "m.safetensors", "data.csv", "--out", "report.html", "--png", "figures", "--twin-steps", 2)
    assert done.status == 0, done.err
    assert "Gradient norm at lag" in done.out
    assert done.out.splitlines()[-1].startswith("wrote report.html and ")
    assert (place / "report.html").read_text().startswith("<!doctype html>")
    names = sorted(path.name for path in (place / "figures").iterdir())
    assert {"gates-1.png", "gates-1-dark.png", "gradients.png", "attribution.png"} <= set(names)
    assert all((place / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_json_holds_the_numbers(place, call):
    done = call("explain", "m.safetensors", "data.csv", "--out", "r.html", "--id", "north", "--twin-steps", 0, "--json")
    found = json.loads(done.out)
    assert found["model"]["units"] == 4
    assert len(found["layers"][0]["half_life_steps"]) == 4
    assert abs(sum(found["attribution"]["shares"].values()) - 1) < 1e-6
    assert found["gradients"]["missing"] == "it was not asked for"
    assert found["out"] == "r.html"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "report.pdf"], "the suffix must be .html or .htm"),
        (["--out", "nowhere/report.html"], "there is no folder nowhere"),
        (["--out", "r.html", "--id", "west"], "no sequence is called 'west'"),
        (["--out", "r.html", "--member", "3"], "member is 3, but the model has 1"),
        (["--out", "r.html", "--png", "data.csv"], "a file is in the way"),
        (["--out", "r.html", "--png", "data.csv/figures"], "a file is in the way"),
        (["--out", "r.html", "--id", ""], "the ids that were asked for are empty"),
    ],
)
def test_refusals_are_a_sentence(place, call, options, words):
    done = call("explain", "m.safetensors", "data.csv", *options)
    assert done.status == 2
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not (place / "r.html").exists()


def test_data_that_do_not_fit_are_refused(place, call):
    pl.DataFrame({"a": [1.0, 2.0]}).write_csv(place / "other.csv")
    done = call("explain", "m.safetensors", "other.csv", "--out", "r.html")
    assert done.status == 2
    assert "other.csv" in done.err


# A browser.


def _foreign(url: str, faults: list[str]) -> None:
    if not url.startswith(("file:", "data:")):
        faults.append(url)


def test_the_report_opens_in_a_browser_without_errors_at_both_widths(found, tmp_path):
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    places = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    browser = next((place for place in places if place), None)
    found.write(tmp_path / "r.html")
    with sync.sync_playwright() as play:
        if browser is None and not Path(play.chromium.executable_path).exists():
            pytest.skip("no Chromium here: apt-get install chromium, or playwright install chromium")
        window = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for width in (390, 1440):
            for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(18, 22, 28)")):
                sheet = window.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
                faults: list[str] = []
                sheet.on("console", lambda message, faults=faults: faults.append(message.text))
                sheet.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
                sheet.on("request", lambda request, faults=faults: _foreign(request.url, faults))
                sheet.goto((tmp_path / "r.html").as_uri())
                assert faults == []
                assert sheet.evaluate("getComputedStyle(document.body).backgroundColor") == paper
                assert sheet.evaluate("document.documentElement.scrollWidth") == width
                shown = sheet.evaluate("[...document.querySelectorAll('svg')].filter(s => s.clientWidth).length")
                assert shown == sheet.evaluate("document.querySelectorAll('figure').length")
                right = "Math.max(...[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().right))"
                assert sheet.evaluate(right) <= width
                sheet.close()
        window.close()
