"""The HTML page of a result: one file that asks for nothing, well-formed, with every number of the tables."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tersor.bench import command, page, plot, table


@pytest.fixture(scope="module")
def result(root):
    return json.loads((root / "bench" / "results" / "lossless.json").read_text())


@pytest.fixture(scope="module")
def text(result):
    return page.bench_page(result)


class Reader(HTMLParser):
    """Fails on tags that do not nest; keeps text and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.said, self.attributes = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.said.append(data)


def test_it_asks_for_nothing(text):
    names = {name for name, _ in Reader(text).attributes}
    assert not names & {"src", "href", "srcset", "data", "xlink:href"}
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img", text)


def test_every_number_is_there(text, result):
    said = set(Reader(text).said)
    for row in result["rows"]:
        assert row["case"] in said
        assert row["impl"] in said
        assert {cell.replace("+-", "±") for cell in table.cells(row)} - {""} <= said
    assert result["machine"]["cpu"] in said


def test_plots_are_well_formed_and_inside(text, result):
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    speeds = ("encode_gbps", "decode_gbps", "decode_into_gbps")
    shown = sum(bool(row.get(speed)) for row in result["rows"] for speed in speeds)
    markers = 0
    for picture in map(ElementTree.fromstring, pictures):
        _, _, width, height = map(float, picture.get("viewBox").split())
        for mark in picture.iter("g"):
            number = mark.find("text")
            assert 0 < float(number.get("x")) < width
            assert 0 < float(number.get("y")) < height
            markers += 1
        assert 3 <= sum(element.tag == "line" for element in picture) <= 24
    assert markers == shown


def test_names_are_text():
    point = plot.Point(name="<b>&", marked=True, x=1.0, y=3.0)
    pictures = plot.plots([(plot.Axis(label="<s>"), "c", [point])], plot.Axis(label="<"))
    made = page.document("a < b", "<p>", [page.section("<i>", pictures, page.table(["<"], [["<u>"]], [True]))])
    said = Reader(made).said
    assert {"a < b", "<p>", "<i>", "<b>&", "<u>"} <= set(said)


def test_the_command_writes_it(tmp_path, capsys):
    out = tmp_path / "pages" / "entropy.html"
    assert command.main(["entropy", "--quick", "--rounds", "1", "--case", "geo", "--html", str(out)]) == 0
    said = Reader(out.read_text(encoding="utf-8")).said
    assert "tersor bench entropy" in said
    assert any("quick run" in part for part in said)
    capsys.readouterr()


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_without_scrolling_sideways(text, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium to look at the page with")
    measure = "<script>document.title = 'wide ' + document.documentElement.scrollWidth + ' ' + innerWidth</script>"
    (tmp_path / "page.html").write_text(text.replace("</body>", measure + "</body>"), encoding="utf-8")
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'home'}",
    )
    done = subprocess.run(
        [browser, *options, f"--window-size={width},900", "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    found = re.search(r"<title>wide (\d+) (\d+)</title>", done.stdout)
    if found is None:
        pytest.skip(f"Chromium does not run here: {done.stderr.strip()[-200:]}")
    assert int(found[1]) <= int(found[2])
