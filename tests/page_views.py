"""Pages to test, and a reader of them in headless Chromium."""

import io
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

from restoration import page as pages  # noqa: E402

VARIANTS = [
    "noisy",
    "BM3D",
    "l2",
    "l1",
    "ssim5",
    "ssim9",
    "ms_ssim",
    "mix",
    "mix_released",
    "ms_ssim+l2",
    "truth",
]
KEYS = {variant: str(number) for number, variant in enumerate(VARIANTS[:9], 1)} | {"truth": "0"}
NASTY = """<b>'x'</b> & "100%" #1? </script>"""
WIDTH, HEIGHT = 96, 72


class Cell(NamedTuple):
    task: str
    variant: str
    metric: str
    mean: float
    lo: float
    hi: float
    pictures: int
    seeds: int


class Point(NamedTuple):
    task: str
    variant: str
    seed: int
    step: int
    loss: float
    test_l2: float
    test_psnr: float


class Claim(NamedTuple):
    number: int
    text: str
    verdict: str
    evidence: str


def colour(variant: str, picture: int) -> tuple[int, int, int]:
    """Each picture and variant has its own, so that a screenshot tells which one is seen."""
    number = VARIANTS.index(variant)
    return 40 + 18 * number, 200 - 15 * number, 60 + 50 * picture


def pixels(variant: str, picture: int) -> np.ndarray:
    """One colour, but for a white square at the left top, one pixel wide stripes at the right bottom
    and noise in one place whose strength depends on the variant: there the results differ most."""
    image = np.full((HEIGHT, WIDTH, 3), colour(variant, picture), np.uint8)
    image[:12, :12] = 255
    image[60:, 84::2] = 0
    noise = np.random.default_rng(0).integers(0, 2, (16, 16, 1)) * 4 * VARIANTS.index(variant)
    image[40:56, 20:36] = noise if variant != "truth" else 0
    return image


def save(folder: Path, task: str, name: str, variant: str, image: np.ndarray) -> str:
    file = f"pictures/{task}/{name.replace('/', '-')}/{variant}.png"
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / file)
    return file


def task_view(folder: Path, name: str, title: str, names: list[str], variants: list[str]) -> pages.TaskView:
    pictures = []
    for number, picture in enumerate(names):
        files = {v: save(folder, name, picture, v, pixels(v, number)) for v in variants}
        metrics = {
            v: {"PSNR": 20 + n, "SSIM": 0.5 + n / 100, "GMSD": 0.2 - n / 100}
            for n, v in enumerate(variants) if v != "truth"
        }  # fmt: skip
        pictures.append(pages.PictureView(picture, f"Look at {picture}", WIDTH, HEIGHT, files, metrics))
    return pages.TaskView(name, title, "A note", variants, pictures)


def write_example(folder: Path) -> None:
    """A page with everything: two tasks, names that are markup, tables, curves, claims."""
    cells = [
        Cell("denoise", "l2", "PSNR", 33.18, 33.0, 33.4, 2, 3),
        Cell("denoise", "mix", "PSNR", 34.61, 34.4, 34.8, 2, 3),
        Cell("denoise", "l2", "GMSD", 0.049, 0.048, 0.050, 2, 3),
        Cell("denoise", "mix", "GMSD", 0.040, 0.039, 0.041, 2, 3),
    ]
    points = [
        Point("denoise", variant, seed, step, 2.0 / (1 + step), 0.001 / (1 + step), 30 + step / 100)
        for variant in ("l2", "mix") for seed in (0, 1) for step in (0, 50, 100)
    ]  # fmt: skip
    claims = [
        Claim(2, "l1 beats l2", "holds", "All intervals"),
        Claim(3, "<i>l2</i> is below BM3D", "cannot tell", "No BM3D"),
        Claim(7, "Bias", "does not hold", "+0.1"),
    ]
    denoise = task_view(folder, "denoise", "Denoising", ["plain", NASTY, "third"], VARIANTS)
    jpeg = task_view(folder, "jpeg", "JPEG <25>", ["fourth"], ["l2", "mix", "truth"])
    page = pages.Page("Losses & pictures", "Seeds 0-2", [denoise._replace(cells=cells), jpeg], claims, points)
    pages.write_page(folder, page)


class Reader:
    """A browser with the page open; it fails the test on any error and on any request to a network."""

    def __init__(self, browser, folder: Path, address: str = "", **context):
        self.context = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | context))
        self.tab = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.tab.on("console", lambda message: self.errors.append(message.text))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}"))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto((folder / "index.html").as_uri() + address)
        if not address or "/" in address:
            self.settle()

    def settle(self) -> None:
        """Until the chosen results are shown and drawn."""
        self.tab.wait_for_selector("#stage[aria-busy=false]", state="attached")
        self.tab.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)
        self.settle()

    def follow(self, name: str) -> None:
        """Clicks a link of the page's head, and waits for its place: the address changes after the click."""
        link = self.tab.get_by_role("link", name=name, exact=True)
        link.click()
        link.and_(self.tab.locator("[aria-current=page]")).wait_for()
        self.settle()

    def shown(self, side: int = 0) -> str:
        return self.tab.locator(".sheet").nth(side).get_attribute("data-variant")

    def box(self, side: int = 0) -> dict[str, float]:
        """Where the visible image lies."""
        return self.tab.locator(".pane").nth(side).locator("img.on").first.bounding_box()

    def screen(self, left: float, top: float, width: int, height: int) -> np.ndarray:
        """What is seen in a rectangle of the window: [height, width, 3]."""
        clip = {"x": int(left), "y": int(top), "width": width, "height": height}
        return np.asarray(Image.open(io.BytesIO(self.tab.screenshot(clip=clip))).convert("RGB"))

    def seen(self, x: float, y: float, side: int = 0) -> tuple[int, ...]:
        """The colour on the screen at the pixel (x, y) of the picture."""
        box = self.box(side)
        left, top = box["x"] + (x + 0.5) * box["width"] / WIDTH, box["y"] + (y + 0.5) * box["height"] / HEIGHT
        return tuple(map(int, self.screen(left, top, 1, 1)[0, 0]))

    def close(self) -> None:
        self.context.close()
        assert not self.errors
        assert all(url.startswith(("file://", "data:")) for url in self.requests)
