"""The page of examples/restoration, in headless Chromium: what a reader sees and hears of it."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from page_views import HEIGHT, KEYS, NASTY, VARIANTS, WIDTH, Reader, colour, pages, task_view, write_example
from PIL import Image

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
# No sandbox: CI runs as root. The rest: no connection that a closed network would refuse.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page & 100% #1?")
    write_example(folder)
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def reader(chromium, folder) -> Iterator[Reader]:
    reader = Reader(chromium, folder)
    yield reader
    reader.close()


def test_keys_show_every_variant_in_the_same_place(reader):
    place = reader.box()
    assert place["width"] >= WIDTH and place["width"] / place["height"] == WIDTH / HEIGHT
    for variant, key in KEYS.items():
        reader.press(key)
        assert reader.shown() == variant
        assert reader.box() == place
        assert reader.seen(50, 20) == colour(variant, 0)
        assert reader.seen(5, 5) == (255, 255, 255)


def test_clicks_and_arrows_reach_every_variant(reader):
    place = reader.box()
    for variant in VARIANTS:
        name = re.compile(f"^{re.escape(pages.names.variant(variant))}(, PSNR|$)")
        reader.tab.get_by_role("button", name=name).click()
        reader.settle()
        assert reader.shown() == variant and reader.box() == place
        assert reader.tab.locator("#variants [aria-pressed=true]").get_attribute("data-value") == variant
    reader.press("1")
    seen = []
    for _ in VARIANTS:
        seen.append(reader.shown())
        reader.press("ArrowDown")
    assert seen == VARIANTS and reader.shown() == VARIANTS[0]
    reader.press("ArrowUp")
    assert reader.shown() == VARIANTS[-1]


def test_space_and_a_click_on_the_picture_go_back_and_forth(reader):
    reader.press("3", "4")
    for expected in ("l2", "l1"):
        reader.press(" ")
        assert reader.shown() == expected
    box = reader.box()
    for expected in ("l2", "l1"):
        reader.tab.mouse.click(box["x"] + 30, box["y"] + 30)
        reader.settle()
        assert reader.shown() == expected


def test_arrows_and_the_list_change_the_picture(reader):
    reader.press("4")
    names = []
    for number in (0, 1, 2, 0):
        names.append(reader.tab.locator("#picture option:checked").inner_text())
        assert reader.shown() == "l1" and reader.seen(50, 20) == colour("l1", number)
        reader.press("ArrowRight")
    assert names[0] == names[3] and names[1] == f"2/3 · {NASTY}"
    reader.press("ArrowLeft", "ArrowLeft")
    assert reader.seen(50, 20) == colour("l1", 2)
    reader.tab.get_by_role("combobox", name="Picture").select_option("0")
    reader.settle()
    assert reader.seen(50, 20) == colour("l1", 0)
    reader.tab.get_by_role("button", name="Next picture").click()
    reader.settle()
    assert reader.seen(50, 20) == colour("l1", 1)
    reader.follow("JPEG <25>")
    assert reader.tab.locator("#picture option:checked").inner_text() == "1/1 · fourth"
    assert reader.tab.locator("#variants button").count() == 3
    reader.press("t")
    assert reader.tab.locator("#variants button").count() == len(VARIANTS)


def test_wheel_zooms_about_the_pointer_and_pixels_stay_crisp(reader):
    before = reader.box()
    point = before["x"] + before["width"] * 0.9, before["y"] + before["height"] * 0.9
    reader.tab.mouse.move(*point)
    for _ in range(3):
        reader.tab.mouse.wheel(0, -200)
    reader.settle()
    after = reader.box()
    assert after["width"] > 2 * before["width"]
    for start, extent, at in (("x", "width", point[0]), ("y", "height", point[1])):
        then = (at - before[start]) / before[extent]
        assert (at - after[start]) / after[extent] == pytest.approx(then, abs=1e-3)
    # The stripes at the right bottom are black or the variant's colour; a smooth enlargement mixes them.
    screen = reader.screen(point[0] - 60, point[1] - 10, 120, 20)
    assert {tuple(map(int, c)) for c in screen.reshape(-1, 3)} == {(0, 0, 0), colour("mix", 0)}
    reader.tab.mouse.wheel(0, 200)
    reader.settle()
    assert before["width"] < reader.box()["width"] < after["width"]


def test_drag_moves_and_is_no_click(reader):
    reader.press("3", "+", "+")
    before, shown = reader.box(), reader.shown()
    x, y = before["x"] + before["width"] / 2, before["y"] + before["height"] / 2
    reader.tab.mouse.move(x, y)
    reader.tab.mouse.down()
    reader.tab.mouse.move(x + 40, y - 30, steps=4)
    reader.tab.mouse.up()
    reader.settle()
    after = reader.box()
    assert (after["x"] - before["x"], after["y"] - before["y"]) == (pytest.approx(40), pytest.approx(-30))
    assert reader.shown() == shown
    reader.press("4")
    assert reader.box() == after  # the view survives a switch
    reader.press("Shift+ArrowRight", "Shift+ArrowDown")
    assert reader.box()["x"] == pytest.approx(after["x"] - 60)
    assert reader.box()["y"] == pytest.approx(after["y"] - 60)


def test_zoom_keys_and_buttons(reader):
    fitted = reader.box()
    text = reader.tab.locator("#scale")
    assert fitted["width"] % WIDTH == 0  # a whole number of pixels of the screen a pixel
    assert text.inner_text() == f"{100 * fitted['width'] / WIDTH:.0f} %"
    reader.press("-")
    assert reader.box()["width"] < fitted["width"]
    reader.press("+", "+")
    assert reader.box()["width"] > fitted["width"]
    reader.tab.get_by_role("button", name="Fit").click()
    reader.settle()
    assert reader.box() == fitted
    reader.tab.get_by_role("button", name="Zoom in").click()
    reader.settle()
    assert reader.box()["width"] > fitted["width"]
    reader.press("f")
    assert reader.box() == fitted
    reader.tab.set_viewport_size({"width": 1000, "height": 500})  # what was fitted stays so
    reader.settle()
    assert reader.box()["width"] < fitted["width"]


def test_two_side_by_side_show_the_same_place(reader):
    reader.press("s", "3", "Shift+Digit8")
    assert [reader.shown(0), reader.shown(1)] == ["l2", "mix"]
    reader.press("+", "+")
    panes = [reader.tab.locator(".pane").nth(side).bounding_box() for side in (0, 1)]
    assert panes[0]["width"] == panes[1]["width"] and panes[0]["y"] == panes[1]["y"]

    def offsets():
        return [{k: round(b[k] - p[k], 2) for k in ("x", "y")} | {"width": round(b["width"], 2)}
                for b, p in zip((reader.box(0), reader.box(1)), panes, strict=True)]  # fmt: skip

    before = offsets()
    assert before[0] == before[1]
    x, y = panes[1]["x"] + 200, panes[1]["y"] + 200
    reader.tab.mouse.move(x, y)
    reader.tab.mouse.wheel(0, -150)
    reader.tab.mouse.down()
    reader.tab.mouse.move(x + 25, y + 15, steps=3)
    reader.tab.mouse.up()
    reader.settle()
    moved = offsets()
    assert moved[0] == moved[1] and moved[0] != before[0]
    reader.tab.mouse.move(panes[0]["x"] + 100, panes[0]["y"] + 100)  # the other pane goes on from there
    reader.tab.mouse.down()
    reader.tab.mouse.move(panes[0]["x"] + 110, panes[0]["y"] + 100, steps=2)
    reader.tab.mouse.up()
    reader.settle()
    again = offsets()
    assert again[0] == again[1] and again[0]["x"] == pytest.approx(moved[0]["x"] + 10)

    reader.tab.get_by_role("button", name="Right").click()
    reader.press("5")
    assert [reader.shown(0), reader.shown(1)] == ["l2", "ssim5"]
    assert reader.tab.locator("#metrics thead th").all_inner_texts() == ["l2", "SSIM5"]
    reader.tab.mouse.click(panes[0]["x"] + 100, panes[0]["y"] + 100)  # chooses the left pane
    reader.press("6")
    assert [reader.shown(0), reader.shown(1)] == ["ssim9", "ssim5"]


def test_slider_parts_two_results(reader):
    reader.press("3", "l")
    reader.tab.get_by_role("button", name="Right").click()
    reader.press("4")
    knob = reader.tab.get_by_role("slider", name="Divider between the two")
    assert reader.box(0) == reader.box(1)
    assert (reader.seen(30, 20), reader.seen(60, 20)) == (colour("l2", 0), colour("l1", 0))
    stage = reader.tab.locator("#stage").bounding_box()
    middle = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    reader.tab.mouse.move(*middle)
    reader.tab.mouse.down()
    reader.tab.mouse.move(middle[0] - stage["width"] * 0.3, middle[1], steps=4)
    reader.tab.mouse.up()
    reader.settle()
    assert int(knob.input_value()) < 250
    assert (reader.seen(30, 20), reader.seen(60, 20)) == (colour("l1", 0), colour("l1", 0))
    knob.focus()
    reader.press("End", "ArrowLeft")  # the slider keeps its own keys
    assert int(knob.input_value()) == 999 and reader.shown(1) == "l1"
    assert reader.seen(60, 20) == colour("l2", 0)
    reader.press("o")
    assert not knob.is_visible()


def test_difference_is_amplified(reader):
    reader.press("d", "ArrowRight", "4")  # the truth to subtract was loaded before this result
    expected = np.abs(np.subtract(colour("l1", 1), colour("truth", 1)))
    gain = reader.tab.get_by_role("slider", name="Amplification of the difference")
    assert gain.get_attribute("aria-valuetext") == "times 8"
    gain.focus()
    reader.press("Home")
    assert reader.seen(50, 20) == tuple(expected)
    reader.press("ArrowRight")
    assert reader.seen(50, 20) == tuple(np.minimum(2 * expected, 255))
    assert reader.seen(5, 5) == (0, 0, 0)
    assert reader.tab.locator(".pane img.own.on").get_attribute("alt") == f"difference of l1, {NASTY}"
    reader.press("0")
    assert reader.seen(50, 20) == (0, 0, 0)
    reader.press("p")
    assert reader.seen(50, 20) == colour("truth", 1) and not gain.is_visible()


def test_ssim_map_is_that_of_the_files(reader, folder):
    reader.press("8", "m")
    map_file = np.asarray(Image.open(folder / "maps/pictures/denoise/plain/mix.png"))
    for x, y in ((50, 20), (28, 48), (20, 60)):
        assert reader.seen(x, y) == (map_file[y, x],) * 3
    assert map_file[48, 28] < 128 < map_file[5, 5] == 255
    place = reader.box()
    reader.press("p")
    assert reader.box() == place


def test_spots_lead_to_where_the_results_differ(reader):
    reader.press("8")
    reader.tab.get_by_role("button", name=re.compile("Spot 1")).click()
    reader.settle()
    box, pane = reader.box(), reader.tab.locator(".pane").first.bounding_box()
    middle = [(pane[s] + pane[e] / 2 - box[s]) / box[e] * n
              for s, e, n in (("x", "width", WIDTH), ("y", "height", HEIGHT))]  # fmt: skip
    assert abs(middle[1] - HEIGHT / 2) <= 1  # a window as high as the picture
    assert 20 - HEIGHT / 2 <= middle[0] <= 36 + HEIGHT / 2


def test_metrics_of_the_picture(reader):
    reader.press("4")
    button = reader.tab.locator("#variants [data-value=l1]")
    assert button.get_attribute("aria-label") == "l1, PSNR, dB 23.00, SSIM 0.5300"
    assert button.locator(".best").count() == 0
    rows = reader.tab.locator("#metrics tbody tr").all_inner_texts()
    assert [re.split(r"\s+(?=\S+$)", row.strip()) for row in rows] == [
        ["PSNR, dB", "23.00"], ["SSIM", "0.5300"], ["GMSD", "0.1700"]
    ]  # fmt: skip
    best = reader.tab.locator("#variants [data-value='ms_ssim+l2'] .best")
    assert best.all_inner_texts() == ["29.00", "0.5900"]
    assert reader.tab.locator("#caption").inner_text() == "Look at plain"


def test_names_are_text_and_files_are_found(reader, folder):
    reader.press("ArrowRight")
    assert reader.seen(50, 20) == colour("mix", 1)
    assert reader.tab.locator("#caption").inner_text() == f"Look at {NASTY}"
    assert reader.tab.locator(".sheet img.on").first.get_attribute("alt") == f"Mix, {NASTY}"
    assert reader.tab.title() == "Losses & pictures"
    assert reader.tab.locator("b:text-is(\"'x'\"), i:text-is('l2')").count() == 0
    address = reader.tab.evaluate("location.hash")
    reader.tab.goto("about:blank")
    reader.tab.goto((folder / "index.html").as_uri() + address)
    reader.settle()
    assert reader.seen(50, 20) == colour("mix", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file name must be text")
def test_file_name_that_is_no_text(chromium, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    view = task_view(tmp_path, "denoise", "Denoising", [name], VARIANTS)
    pages.write_page(tmp_path, pages.Page("Title", "Note", [view]))
    reader = Reader(chromium, tmp_path)
    assert reader.seen(50, 20) == colour("mix", 0)
    assert reader.tab.locator("#picture option").inner_text() == "1/1 · caf?"
    reader.close()


def test_links_open_a_view(chromium, folder):
    reader = Reader(chromium, folder, "#denoise/third/l2/l1/slider")
    assert [reader.shown(0), reader.shown(1)] == ["l2", "l1"]
    assert reader.seen(30, 20) == colour("l2", 2)
    reader.press("ArrowRight", "2")
    assert reader.tab.evaluate("location.hash") == "#denoise/plain/BM3D/l1/slider"
    reader.close()


def test_tables_curves_and_claims_have_their_own_places(reader):
    reader.press("ArrowRight", "3")
    for name in ("Tables", "Curves", "Claims", "Study", "About"):
        reader.follow(name)
        assert reader.tab.get_by_role("heading", name=name, level=2).is_visible()
        assert not reader.tab.locator("#stage").is_visible()
        for key in ("ArrowDown", "4"):  # scrolls, and does nothing
            event = f"new KeyboardEvent('keydown', {{key: '{key}', bubbles: true, cancelable: true}})"
            assert reader.tab.evaluate(f"document.body.dispatchEvent({event})")
    reader.follow("Denoising")
    assert reader.seen(50, 20) == colour("l2", 1)  # what was looked at before


def test_tab_reaches_every_control_and_shows_where_it_is(reader):
    reader.press("s", "d")
    controls = "a[href], button, select, input, [tabindex]"
    expected = reader.tab.evaluate(
        f"""() => [...document.querySelectorAll('{controls}')]
            .filter(e => e.checkVisibility() && !e.closest('dialog')).length"""
    )
    reader.tab.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(expected):
        reader.tab.keyboard.press("Tab")
        outline, key = reader.tab.evaluate(
            f"""() => [getComputedStyle(document.activeElement).outlineStyle,
                [...document.querySelectorAll('{controls}')].indexOf(document.activeElement)]"""
        )
        assert outline != "none"
        reached.add(key)
    assert len(reached - {-1}) == expected > 25


def test_help_opens_by_key_and_keeps_the_keys(reader):
    reader.press("?")
    dialog = reader.tab.get_by_role("dialog", name="Keys")
    assert dialog.is_visible()
    reader.tab.keyboard.press("3")
    assert reader.shown() == "mix"
    reader.tab.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


def accessible(reader: Reader) -> list[tuple[str, str]]:
    """(role, name) of everything a screen reader meets."""
    session = reader.context.new_cdp_session(reader.tab)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]


def test_everything_has_a_name(reader):
    reader.press("l", "d", "3")
    met = accessible(reader)
    wanted = {"button", "link", "slider", "combobox", "image", "navigation", "table", "region", "group"}
    assert {role for role, _ in met} >= {"button", "link", "slider", "combobox", "image", "navigation"}
    assert not [(role, name) for role, name in met if role in wanted and not name.strip()]
    # A picture is read once for each pane, not once for each variant that waits behind it.
    images = [name for role, name in met if role == "image"]
    assert images == ["difference of l2, plain", "difference of Ground truth, plain"]
    assert reader.tab.locator("#status").inner_text() == "l2 and Ground truth, plain"


def test_phone(chromium, folder):
    phone = {
        "viewport": {"width": 360, "height": 740},
        "device_scale_factor": 3,
        "has_touch": True,
        "is_mobile": True,
    }
    reader = Reader(chromium, folder, **phone)
    width = "document.documentElement.scrollWidth"
    assert reader.tab.evaluate(width) <= 360
    box = reader.box()
    assert box["width"] > 200 and box["y"] + box["height"] < 740
    tools = reader.tab.locator("#layouts").bounding_box()
    assert tools["y"] >= box["y"] + box["height"]  # below the picture, which stays in sight
    reader.tab.locator("#variants [data-value=l1]").tap()
    reader.settle()
    assert reader.shown() == "l1"
    reader.tab.locator("#stage").tap()
    reader.settle()
    assert reader.shown() == "mix"  # the one before
    reader.tab.evaluate("scrollTo(0, 0)")
    reader.settle()
    before = reader.box()
    x, y = before["x"] + before["width"] * 0.4, before["y"] + before["height"] * 0.6
    session = reader.context.new_cdp_session(reader.tab)

    def touch(kind: str, *distances: int) -> None:
        points = [{"x": x + d, "y": y, "id": n} for n, d in enumerate(distances)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", -20, 20)
    for distance in range(22, 62, 2):
        touch("touchMove", -distance, distance)
    touch("touchEnd")
    reader.settle()
    after = reader.box()
    assert after["width"] == pytest.approx(3 * before["width"], rel=0.01) and reader.shown() == "mix"
    assert after["x"] + after["width"] * 0.4 == pytest.approx(x, abs=5)  # about the fingers' middle
    assert after["y"] + after["height"] * 0.6 == pytest.approx(y, abs=5)
    touch("touchStart", 0)
    for distance in (10, 20, 30, 40):
        touch("touchMove", distance)
    touch("touchEnd")
    reader.settle()
    assert reader.box()["x"] == pytest.approx(after["x"] + 40, abs=1)
    for name in ("Tables", "Curves", "Claims", "Study", "About"):
        reader.tab.get_by_role("link", name=name, exact=True).tap()
        assert reader.tab.evaluate(width) <= 360
    reader.close()


def luminance(text: str) -> float:
    """WCAG's relative luminance of "rgb(r, g, b)"."""
    channels = [int(c) / 255 for c in re.findall(r"\d+", text)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in(chromium, folder, scheme):
    reader = Reader(chromium, folder, color_scheme=scheme)
    ground = luminance(reader.tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert ground > 0.8 if scheme == "light" else ground < 0.05
    colours = reader.tab.evaluate(
        """() => [...document.querySelectorAll('body *')]
            .filter(e => e.textContent.trim() && !e.closest('.stage, dialog, script, style'))
            .map(e => getComputedStyle(e).color)"""
    )
    for text in set(colours):
        low, high = sorted((luminance(text), ground))
        assert (high + 0.05) / (low + 0.05) >= 4.5, text
    reader.close()


def test_only_the_picture_looked_at_is_loaded(chromium, tmp_path):
    view = task_view(tmp_path, "denoise", "Denoising", [f"p{n:02}" for n in range(6)], VARIANTS)
    pages.write_page(tmp_path, pages.Page("Title", "Note", [view]))
    reader = Reader(chromium, tmp_path)
    reader.tab.wait_for_timeout(300)
    loaded = [url for url in reader.requests if url.endswith(".png")]
    assert len({url for url in loaded if "/p00/" in url}) == len(VARIANTS)
    assert len({url for url in loaded if "/p00/" not in url}) == 2  # the neighbours, in one variant
    assert not [url for url in loaded if "/maps/" in url]
    reader.requests.clear()
    reader.press(*"123456789")  # all there already
    assert not [url for url in reader.requests if "/p00/" in url]
    reader.close()


def test_a_switch_never_shows_nothing(reader):
    reader.tab.evaluate(
        """() => { window.frames = [];
            const look = () => {
                const on = [...document.querySelectorAll('.pane:first-child img.on')];
                window.frames.push(on.length === 1 && on[0].complete && on[0].naturalWidth > 0);
                requestAnimationFrame(look);
            };
            look(); }"""
    )
    for key in [*"1234567890", "ArrowRight", *"31", "ArrowRight", "ArrowLeft", "t", "t"]:
        reader.tab.keyboard.press(key)  # without waiting
    reader.settle()
    frames = reader.tab.evaluate("window.frames.slice()")
    assert len(frames) > 5 and all(frames)


def test_missing_file_is_said(chromium, tmp_path):
    view = task_view(tmp_path, "denoise", "Denoising", ["plain"], ["l2", "mix", "truth"])
    pages.write_page(tmp_path, pages.Page("Title", "Note", [view]))
    (tmp_path / view.pictures[0].files["mix"]).unlink()
    reader = Reader(chromium, tmp_path)
    assert reader.tab.locator(".tag").first.inner_text() == "Mix: no such file"
    reader.press("1")
    assert reader.seen(50, 20) == colour("l2", 0)
    reader.errors.clear()  # the browser's own note that it found no file
    reader.close()
