"""The page in a real browser: it loads, the slider moves, points can be hovered, nothing complains."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parts2whole.report.embedding import Embedding, write_embedding
from parts2whole.report.page import write_report
from parts2whole.run_folder import EMBEDDING

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on PATH: the page is not tried in a browser")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page_file(tmp_path: Path, pretrained: MakeRun) -> Path:
    folder = pretrained(tmp_path / "run")
    generator = np.random.default_rng(0)
    thumbs = np.repeat(np.array([40, 120, 200], np.uint8), 4)[:, None, None] * np.ones((12, 6, 5), np.uint8)
    points = {s: {n: generator.normal(size=(12, 2)).astype(np.float32) for n in ("t-SNE", "PCA")} for s in ("before", "after")}  # fmt: skip
    numbers = {
        "which_whole": 0.25,
        "which_whole_chance": 3 / 11,
        "distance_within": 0.1,
        "distance_between": 0.9,
    }
    embedding = Embedding(
        points=points,
        whole=np.repeat(np.arange(3), 4),
        names=("case_a", "case_b", "case_c"),
        thumbs=thumbs,
        whole_thumbs=thumbs[::4],
        nearest=np.tile(np.array([[1, 0]]), (12, 1)),
        numbers={"before": numbers, "after": numbers | {"which_whole": 0.75}},
    )
    write_embedding(folder / EMBEDDING, embedding, {})
    return write_report(folder)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_person_can_use_the_page(browser: Any, page_file: Path, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme, viewport={"width": 1200, "height": 900})
    troubles: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert (min(map(int, ink[4:-1].split(","))) > 128) == (scheme == "dark")

    slider = page.locator("#slice-axial")
    pixels = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].join()"
    canvas = page.locator(".plane canvas").nth(2)
    page.wait_for_function("document.querySelector('.plane output').textContent.includes('of 4')")
    before = canvas.evaluate(pixels)
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(".plane output").first.text_content() == "slice 1 of 4"
    assert canvas.evaluate(pixels) != before

    points = page.locator(".plots circle")
    assert points.count() == 24
    points.nth(12 + 9).hover()
    tip = page.locator(".tip.part")
    assert tip.is_visible()
    assert tip.locator("b").text_content() == "case_c"
    page.wait_for_function(
        "() => { const c = document.querySelector('.tip.part canvas'); "
        "return c.getContext('2d').getImageData(0, 0, 1, 1).data[0] === 200 }"
    )
    assert page.locator(".plots circle.this").count() == 2  # in both plots
    assert page.locator(".plots circle.same").count() == 6
    assert page.locator(".tip.part .row figure").count() == 2
    page.mouse.move(5, 5)
    assert not tip.is_visible()

    place = points.nth(13).get_attribute("cx")
    page.get_by_role("button", name="PCA").click()
    assert page.locator(".plots circle").nth(13).get_attribute("cx") != place
    assert page.locator("#embedding table").inner_text().count("75.0 %") == 1
    assert troubles == []
    assert all(url.startswith(("file:", "data:")) for url in requests)
    page.close()


LISTEN = """<script>
const errors = [];
console.error = (...words) => errors.push(words.join(" "));
addEventListener("error", (event) => errors.push(event.message), true);
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => errors.push(event.violatedDirective));
</script>"""

ACT = """<script>
setTimeout(() => {
  const seen = {};
  const pixels = (canvas) => Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data)
    .filter((_, i) => i % 4 === 0);
  const slider = document.querySelector("#slice-axial");
  const whole = document.querySelectorAll(".plane canvas")[2];
  seen.before = pixels(whole);
  slider.value = 0;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  seen.after = pixels(whole);
  seen.told = document.querySelector(".plane output").textContent;
  seen.coronal = pixels(document.querySelectorAll(".plane")[1].querySelectorAll("canvas")[2]);
  const chart = document.querySelector(".chart svg");
  const box = chart.getBoundingClientRect();
  chart.dispatchEvent(new PointerEvent("pointermove", { clientX: box.right - 150, clientY: box.top + 50 }));
  seen.tip = document.querySelector(".tip").innerText;
  document.querySelector(".tools .scale").click();
  document.querySelector(".tools button").click();
  seen.lines = document.querySelectorAll(".chart path").length;
  seen.errors = errors;
  document.body.replaceChildren(JSON.stringify(seen));
}, 1000);
</script>"""


def test_the_page_is_alive_in_a_browser(browser: Any, tmp_path: Path, pretrained: MakeRun) -> None:
    folder = pretrained(tmp_path / "run")
    text = write_report(folder).read_text()
    head, rest = text.split("<title>", 1)
    tried = tmp_path / "tried.html"
    tried.write_text(head + LISTEN + "<title>" + rest.replace("</body>", ACT + "</body>"))
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(tried.as_uri())
    page.locator("body:not(:has(*))").wait_for()  # `ACT` has left nothing but what it saw
    seen = json.loads(page.inner_text("body"))
    page.close()
    assert seen["errors"] == []
    panel = np.load(folder / "panels" / "latest.npz")
    errors = ((panel["reconstruction"] - panel["whole"]) ** 2).mean(axis=(1, 2, 3))
    expected = np.rint(panel["whole"][errors.argmin()] * 255)  # the median of two is the better one
    np.testing.assert_array_equal(seen["before"], expected[2].ravel())
    np.testing.assert_array_equal(seen["after"], expected[0].ravel())
    np.testing.assert_array_equal(seen["coronal"], expected[::-1, 2].ravel())  # the box is 1 to 4 along y
    assert seen["told"] == "slice 1 of 4"
    assert "what the network sees" in seen["tip"]
    assert seen["lines"] >= 5


def test_the_page_fits_a_phone(browser: Any, page_file: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(page_file.as_uri())
    page.wait_for_selector(".plots circle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_two_curves_have_their_own_axes(browser: Any, tmp_path: Path, pretrained: MakeRun) -> None:
    folder = pretrained(tmp_path / "run")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"info_nce_0.1": 4.5, "map_info_nce_0.1": 400 + line["step"]}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(write_report(folder).as_uri())
    chart = page.locator(".charts.contrast .chart").first
    chart.scroll_into_view_if_needed()
    ticks = chart.locator("svg > text[style]").evaluate_all(
        "all => all.map(t => [t.textContent, t.style.fill])"
    )
    by_colour = {colour: [float(text) for text, of in ticks if of == colour] for _, colour in ticks}
    left, right = by_colour.values()
    assert 0 <= min(left) < max(left) < 0.1
    assert 400 < min(right) < max(right) < 700
    chart.locator("svg").focus()
    page.keyboard.press("ArrowLeft")
    assert "600" in chart.locator(".tip").inner_text()  # at step 200
    chart.locator("button", has_text="reconstruction").click()
    assert chart.locator("svg path").count() == 1
    assert chart.locator("svg > text[style]").count() == len(right)
    assert not troubles


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 400])
def test_the_box_is_where_the_part_was_cut_from(
    browser: Any, tmp_path: Path, pretrained: MakeRun, scheme: str, width: int
) -> None:
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.goto(write_report(pretrained(tmp_path / "run")).as_uri())
    whole = page.locator(".plane").first.locator(".stage").nth(2)
    whole.locator("rect").wait_for(state="attached")
    frame, box = whole.bounding_box(), whole.locator("rect").bounding_box()
    # The whole is 4 x 6 x 5 voxels (z, y, x), the box 1 to 3, 1 to 4, 0 to 3; its line is 1.5 pixels wide.
    assert box["x"] - frame["x"] == pytest.approx(0, abs=2)
    assert box["width"] == pytest.approx(3 / 5 * frame["width"], abs=3)
    assert box["y"] - frame["y"] == pytest.approx(1 / 6 * frame["height"], abs=2)
    assert box["height"] == pytest.approx(3 / 6 * frame["height"], abs=3)
    assert page.locator(".plane output").first.text_content() == "slice 3 of 4"  # the middle of 1 to 3
    assert "the median of 2 by error" in page.locator(".about").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_what_is_not_told_apart_is_grey(browser: Any, tmp_path: Path, finetuned: MakeRun) -> None:
    for seed, (low, high) in enumerate([(0.70, 0.72), (0.71, 0.69), (0.69, 0.70)]):
        finetuned(tmp_path / f"scratch-{seed}", dice=low, seed=seed)
        finetuned(tmp_path / f"p2w-{seed}", dice=high, seed=seed, init="weights/p2w")
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.goto(write_report(tmp_path).as_uri())
    colour = page.locator(".verdict").first.evaluate("e => getComputedStyle(e).borderLeftColor")
    red, green, blue = map(int, colour[4:-1].split(","))
    assert max(red, green, blue) - min(red, green, blue) < 30
    assert page.locator(".charts.finetuning .chart svg path").count() > 0
    page.set_viewport_size({"width": 400, "height": 900})
    table = page.locator("table.results").first
    assert table.locator("th").last.inner_text() == "p"
    assert table.evaluate("e => e.scrollWidth") <= 400 - 2 * 16, "difference and p are on a phone, too"
    page.close()


def write_log(folder: Path, validation: dict[int, dict[str, float]]) -> None:
    lines = [{"step": step, "time_s": 1, "split": "validation"} | found for step, found in validation.items()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_cursor_reads_off_nothing_where_a_run_has_not_been(
    browser: Any, tmp_path: Path, pretrained: MakeRun
) -> None:
    base = {"baseline_mean_whole": 0.03}
    for name, steps in (("short", (50, 100)), ("long", (100, 1000))):
        folder = pretrained(tmp_path / name, panel=False, arm=name)
        write_log(folder, {step: {"loss": 0.01 if name == "long" else 0.02} | base for step in steps})
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(write_report(tmp_path).as_uri())
    chart = page.locator(".charts.main .chart").first
    chart.locator("svg").focus()
    page.keyboard.press("ArrowLeft")
    assert "step 1,000" in chart.locator(".tip").inner_text()
    assert "long" in chart.locator(".tip").inner_text()
    assert "short" not in chart.locator(".tip").inner_text()
    page.keyboard.press("ArrowLeft")
    assert "short" in chart.locator(".tip").inner_text()
    page.close()


@pytest.mark.parametrize("width", [640, 800, 1200])
def test_long_names_leave_the_plot_its_room(browser: Any, tmp_path: Path, pretrained: MakeRun, width) -> None:
    for place in "ab":
        pretrained(tmp_path / (place * 100), panel=False, arm=place * 100)
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(write_report(tmp_path).as_uri())
    path = page.locator(".charts.main .chart svg path.main").first.get_attribute("d")
    xs = [float(point.split(",")[0]) for point in path[1:].split("L")]
    assert xs == sorted(xs)
    assert xs[-1] - xs[0] > 0.3 * width
    page.close()


def test_names_of_lines_stay_in_the_plot(browser: Any, tmp_path: Path, finetuned: MakeRun) -> None:
    folder = finetuned(tmp_path / "run", test={"dice_mean": 0.9})
    scores = {"dice_mean": 0.9} | {f"dice_organ_{place}": place / 1000 for place in range(5)}
    write_log(folder, dict.fromkeys((50, 100), scores))
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(write_report(folder).as_uri())
    chart = page.locator(".chart").first
    read = "all => all.map(t => [t.textContent, Number(t.getAttribute('y'))])"
    at = dict(chart.locator("svg text.label").evaluate_all(read))
    places = sorted(at.values())
    assert 0 < at["Dice mean"] < 60  # beside its line, at the top
    assert all(b - a >= 14.9 for a, b in itertools.pairwise(places))
    assert places[-1] <= page.evaluate("document.querySelector('.chart svg').viewBox.baseVal.height")
    page.close()


@pytest.mark.parametrize("losses", [(0.0222, 0.0221, 0.0262), (4.1588, 4.15884, 4.15889), (0.001, 0.5, 30.0)])
def test_an_axis_has_numbers_that_differ(browser: Any, tmp_path: Path, pretrained: MakeRun, losses) -> None:
    folder = pretrained(tmp_path / "run", panel=False, method="SimCLR")
    write_log(folder, {100 * place: {"loss": loss} for place, loss in enumerate(losses, 1)})
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(write_report(folder).as_uri())
    chart = page.locator(".chart").first
    for _ in range(2):  # on either scale
        found = chart.locator("svg text[text-anchor=end]").all_text_contents()[:-1]
        assert len(found) >= 2
        assert len(set(found)) == len(found)
        chart.locator("button.scale").click()
    page.close()


def test_of_many_arms_every_one_has_its_mark(browser: Any, tmp_path: Path, finetuned: MakeRun) -> None:
    for place in range(18):
        for seed in range(2):
            about = {"arm": f"arm {place:02}", "task_name": "T"}
            finetuned(tmp_path / f"{place}-{seed}", seed=seed, dice=0.5 + place / 100 + seed / 500, **about)
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(write_report(tmp_path).as_uri())
    chart = page.locator(".charts.study .chart").first
    marks = chart.locator("svg .dot").evaluate_all("all => all.map(d => d.tagName + d.getAttribute('style'))")
    assert len(set(marks)) == 18
    pairs = chart.locator("svg .pair").count()
    chart.locator("button", has_text="arm 09").click()
    assert chart.locator("svg .pair").count() == pairs > 0
    assert not troubles
    page.close()
