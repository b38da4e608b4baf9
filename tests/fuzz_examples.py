"""Damaged pictures and random command lines for the examples; exit status 1 if anything goes wrong.

    python tests/fuzz_examples.py --cases 2000 --seed 0

A case is right if it ends with exit status 0 or 2 and no traceback; if a refusal is one line and leaves
every file as it was; and if a picture that was written holds the network's output, to the last bit where
the format can. A folder of damaged pictures must be read as far as its pictures can be.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import jpeg_deblocking  # noqa: E402
import restore  # noqa: E402
from restoration import data, pictures, run  # noqa: E402
from restoration.network import Network, save_network  # noqa: E402

SMALL = dataclasses.replace(jpeg_deblocking.TASK, network={"widths": (4, 4)})
INPUTS = {
    "jpeg": {"kind": "jpeg"},
    "noisy": {"kind": "noisy"},
    "bilinear": {"kind": "bilinear", "factor": 3},
}
MODES = ("RGB", "L", "RGBA", "LA", "P", "I;16", "1")
# Levels of 255 that a format of the best quality may change; 0 for every other.
LOSSY = {"JPEG": 6, "MPO": 6, "AVIF": 6}
USUAL = (".png", ".jpg", ".tif", ".webp", ".avif", ".jp2", ".bmp", ".pgm", ".tga", ".gif")
PIXELS = 400_000  # Pillow refuses twice as many: a damaged header may claim any size


def small_pictures(seed: int = 0) -> list[tuple[str, bytes]]:
    """(suffix, file): every mode of every format that Pillow writes and reads, with metadata."""
    numbers = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x8769] = "Maker", 6, {0xA002: 24, 0x9003: "2020:01:01 00:00:00"}
    options = {"exif": exif.tobytes(), "icc_profile": bytes(16) + b"RGB " + bytes(40), "dpi": (300, 300),
               "xmp": b'<x tiff:ImageWidth="24"/>', "comment": b"a comment"}  # fmt: skip
    suffixes: dict[str, str] = {}
    for suffix, format in Image.registered_extensions().items():
        suffixes.setdefault(format, suffix)
    files = []
    for (format, suffix), mode in itertools.product(sorted(suffixes.items()), MODES):
        grey = Image.fromarray(numbers.integers(0, 65536, (20, 24), dtype=np.uint16))
        colour = Image.fromarray(numbers.integers(0, 256, (20, 24, 4), dtype=np.uint8))
        file = io.BytesIO()
        with contextlib.suppress(Exception):
            (grey if mode == "I;16" else colour.convert(mode)).save(file, format, **options)
            Image.open(file).load()
            files.append((suffix, file.getvalue()))
    return files


def save_small_network(path: Path, kind: str) -> None:
    """One that changes every pixel."""
    torch.manual_seed(0)
    made = Network(kernels=(3, 1, 3), widths=(4, 4))
    torch.nn.init.normal_(made.layers[-1].weight, std=0.05)
    save_network(path, made, {"task": "t", "input": json.dumps(INPUTS[kind])})


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Flipped bits, the end cut off, a piece twice, or nothing."""
    changed = bytearray(content)
    kind = chance.choice(("flips", "flips", "head", "cut", "twice", "none", "none", "none"))
    if kind in ("flips", "head"):
        reach = len(changed) if kind == "flips" else min(200, len(changed))
        for _ in range(chance.choice((1, 1, 2, 8))):
            changed[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del changed[chance.randrange(len(changed)) :]
    elif kind == "twice":
        start = chance.randrange(len(changed))
        changed[start:start] = changed[start : start + chance.randrange(1, 40)]
    return bytes(changed)


def state(folder: Path) -> dict[Path, str]:
    """What every file holds."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def called(function, *arguments) -> tuple[int, str, str]:
    """(exit status, stdout, stderr); what it raises goes through."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            status = function(*arguments)
        except SystemExit as end:
            status = end.code
    return status, out.getvalue(), error.getvalue()


class Fuzz:
    """Cases of four kinds, each in a folder of its own."""

    def __init__(self, root: Path, seed: int):
        self.root, self.seed = root, seed
        self.pictures = small_pictures()
        self.checkpoints = [root / f"{kind}.safetensors" for kind in INPUTS]
        for kind, path in zip(INPUTS, self.checkpoints, strict=True):
            save_small_network(path, kind)
        for number in range(3):
            values = np.random.default_rng(number).integers(0, 256, (170, 170, 3), dtype=np.uint8)
            (root / "photos").mkdir(exist_ok=True)
            Image.fromarray(values).save(root / "photos" / f"{number}.png")
        self.kinds = (self.picture, self.picture, self.picture, self.command, self.folder, self.run)
        self.outcomes: Counter[str] = Counter()

    def case(self, number: int) -> None:
        """Raises where anything is wrong."""
        chance = random.Random(f"{self.seed} {number}")
        kind = chance.choice(self.kinds)
        folder = self.root / "case"
        folder.mkdir()
        try:
            outcome = kind(folder, chance)
        finally:
            shutil.rmtree(folder)
        self.outcomes[f"{kind.__name__}: {outcome}"] += 1

    def picture(self, folder: Path, chance: random.Random) -> str:
        """restore.py on a damaged picture, into a format of any kind."""
        suffix, content = chance.choice(self.pictures)
        source = folder / f"{chance.choice(('a', 'IMG 1', 'é#?', '-x'))}{suffix}"
        source.write_bytes(damaged(content, chance))
        every = sorted(Image.registered_extensions())
        out = folder / f"out{chance.choice(chance.choice((every, USUAL)))}"
        if chance.random() < 0.2:
            out.write_bytes(b"there before")
        options = [f"--out={out}"]
        quality = chance.random() < 0.2
        options += [f"--quality={chance.randint(1, 100)}"] if quality else []
        options += ["--mosaic"] if chance.random() < 0.1 else []
        options += ["--overwrite"] if chance.random() < 0.5 else []
        before, results = state(folder), []
        whole = restore.restore

        def kept(*arguments, **keywords):
            results.append((arguments[2], whole(*arguments, **keywords)))
            return results[-1][1]

        restore.restore = kept
        try:
            status, said, error = called(
                restore.main, [*options, "--", str(chance.choice(self.checkpoints)), str(source)]
            )
        finally:
            restore.restore = whole
        after = state(folder)
        if status == 2:
            assert after == before, "a refusal changed a file"
            assert not results, f"refused after the work: {error}"
            assert not said and error.splitlines()[-1].startswith("restore"), (said, error)
            assert sum("restore: " in line for line in error.splitlines()) == 1, error
            return "refused"
        assert status == 0 and said == f"{out}\n", (status, said, error)
        del after[out]
        assert after == {path: digest for path, digest in before.items() if path != out}, "a file was changed"
        ((picture, result),) = results
        self.compare(out, picture, result, quality, error)
        return "written"

    def compare(self, out: Path, picture, result: torch.Tensor, quality: bool, said: str) -> None:
        """What was written beside what the network gave, read by Pillow alone."""
        format = Image.registered_extensions()[out.suffix]
        if format in pictures.UNREADABLE:
            return
        with Image.open(out) as image:
            image.load()
        values = np.array(image).astype(np.float64)
        deep = values.max() > 255 or image.mode in ("I;16", "I")
        wanted = result.numpy().astype(np.float64)
        if result.dtype == torch.uint16 and not deep:
            assert "8 bits" in said, said
            wanted = np.round(wanted / 257)
        if picture.alpha is not None and result.dtype == torch.uint16 and deep:
            shown = np.asarray(picture.alpha.resize(image.size, Image.Resampling.BILINEAR)) >= 128
            assert image.info["transparency"] == 0 and (values[~shown] == 0).all()
            wanted = np.where(shown, wanted.clip(1), 0)
        elif picture.alpha is not None:
            alpha = image.convert("RGBA").getchannel("A")
            shown = np.asarray(picture.alpha.resize(image.size, Image.Resampling.BILINEAR)).astype(int)
            off = np.abs(np.asarray(alpha) - shown).max()
            assert quality or off <= LOSSY.get(format, 0), f"{out.suffix}: transparency {off} off"
        else:
            assert not image.has_transparency_data
        if not deep:
            image = image.convert("L" if result.shape[0] == 1 else "RGB")
            values = np.array(image).astype(np.float64)
        values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
        assert values.shape == wanted.shape, (values.shape, wanted.shape)
        off = np.abs(values - wanted).max()
        assert quality or off <= LOSSY.get(format, 0), f"{out.suffix}: {off} off"

    def command(self, folder: Path, chance: random.Random) -> str:
        """restore.py with options and names of any kind."""
        Image.new("RGB", (20, 20)).save(folder / "a.png")
        Image.new("RGB", (20, 20)).save(folder / "a.bmp")
        (folder / "empty.jpg").touch()
        (folder / "below").mkdir()
        os.mkfifo(folder / "pipe.png")
        broken = folder / "broken.safetensors"
        broken.write_bytes(damaged(chance.choice(self.checkpoints).read_bytes(), chance))
        names = ["a.png", "a.bmp", "empty.jpg", "below", "pipe.png", "missing.png", "x" * 300 + ".png", ""]
        names += ["a.png/b.png", "below/new/b.tif", "\0.png", ".", "broken.safetensors", "/proc/x.png"]
        words = [str(folder / name) for name in names] + [str(path) for path in self.checkpoints] * 4
        words += ["--mosaic", "--overwrite", "--help", "--quality", "--out", "--task", "--", "-q", "50", "0"]
        words += ["-1", "1e9", "nan", "jpeg", "enlarge", "x", "--out=", "--quality=95", "--nonsense", "--o"]
        line = [chance.choice(words) for _ in range(chance.randrange(7))]
        if chance.random() < 0.7:  # else hardly a line would run
            picture = folder / chance.choice(chance.choice((names, names[:2])))
            line = [str(chance.choice([*self.checkpoints, broken])), str(picture), *line[:3]]
        before = state(folder)
        status, said, error = called(restore.main, line)
        assert status in (0, 2), (status, line)
        if status == 2:
            assert 1 <= len(error.splitlines()) <= len(line) + 2 and "Traceback" not in error, (line, error)
        after = state(folder)
        lost = [path for path in before if after.get(path) != before[path]]
        assert all("--overwrite" in line or "--o" in line for _ in lost), (line, lost)
        assert not lost or not any(path.suffix in (".safetensors",) for path in lost), (line, lost)
        new = set(after) - set(before)
        assert len(new) <= len(said.splitlines()), (line, new, said)
        return str(status)

    def folder(self, folder: Path, chance: random.Random) -> str:
        """A tree of damaged pictures: what restore.py can read is a photograph."""
        wanted = 0
        for number in range(4):
            suffix, content = chance.choice(self.pictures)
            path = folder / f"{number}{suffix}"
            path.write_bytes(damaged(content, chance))
            if suffix in data.SUFFIXES:
                with contextlib.suppress(OSError, ValueError):
                    picture = pictures.opened(path)
                    opaque = picture.alpha is None or picture.alpha.getextrema()[0] == 255
                    wanted += opaque and min(picture.pixels.shape[1:]) >= 16
        result: list[int] = []
        _, _, error = called(lambda: result.append(len(data.read_folder(folder, 16))))
        assert result == [wanted], (result, wanted, error)
        return f"{wanted} read"

    def run(self, folder: Path, chance: random.Random) -> str:
        """A training script's command line, on two steps."""
        (folder / "file").touch()
        words = {
            "--data": [self.root / "photos", folder, folder / "file", folder / "missing", "x" * 300],
            "--test": [self.root / "photos", folder],
            "--out": [
                folder / "file",
                folder / "file" / "x",
                folder / ("y" * 300),
                folder / "run",
                "/proc/x",
            ],
            "--losses": ["l1", "l2", "nonsense", ""],
            "--steps": ["1", "0", "-1", "nan", "1e3", ""],
            "--batch-size": ["1", "2", "3", "0", "1" * 30],
            "--seeds": ["0", "-1", "4294967296", "1.5", "x"],
            "--minutes": ["0", "-1", "nan", "inf", "x"],
            "--accelerator": ["cpu", "tpu", *([] if torch.cuda.is_available() else ["cuda"])],
            "--devices": ["1", "0", "100000", "-3"],
            "--nodes": ["1", "0", "7"],
            "--precision": ["32-true", "16-mixed", "bf16-mixed", "64"],
        }
        line = ["--data", self.root / "photos", "--out", folder / "run", "--losses", "l1", "--steps", "1",
                "--batch-size", "1", "--train-only", "--accelerator", "cpu"]  # fmt: skip
        for option in chance.sample(sorted(words), chance.choice((1, 1, 2, 3))):
            line += [option, chance.choice(words[option])]
        line += [chance.choice(("--resume", "--nonsense", "--help", "x"))] if chance.random() < 0.15 else []
        parser = run.parser([SMALL], SMALL.title, SMALL.name)
        photos = state(self.root / "photos")

        def whole() -> int:
            return run.main(SMALL.title, [SMALL], parser.parse_args([str(word) for word in line]))

        status, _, error = called(whole)
        assert status in (0, 2), (status, line)
        assert state(self.root / "photos") == photos
        if status == 2:
            assert error.strip() and "Traceback" not in error, (line, error)
            assert not (folder / "run" / "settings.json").exists(), (line, error)
        elif (folder / "run" / "settings.json").exists():
            settings = json.loads((folder / "run" / "settings.json").read_text())
            assert settings["precision"] in ("32-true", "bf16-mixed"), line
        return str(status)


def fuzz(cases: int, seed: int, first: int = 0) -> SimpleNamespace:
    """failures: [(number, traceback)], outcomes: {kind and end: how many}."""
    failures = []
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, PIXELS
    here = os.getcwd()
    try:
        with tempfile.TemporaryDirectory() as root:
            os.chdir(root)  # a random --out may be relative
            cases_of = Fuzz(Path(root), seed)
            for number in range(first, first + cases):
                try:
                    cases_of.case(number)
                except Exception:
                    failures.append((number, traceback.format_exc()))
                for stray in set(Path(root).iterdir()) - {*cases_of.checkpoints, Path(root) / "photos"}:
                    shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
            os.chdir(here)
    finally:
        os.chdir(here)
        Image.MAX_IMAGE_PIXELS = limit
    return SimpleNamespace(failures=failures, outcomes=cases_of.outcomes, pictures=len(cases_of.pictures))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--seed", type=int, default=0, help="other cases; default: %(default)s")
    options = parser.parse_args()
    result = fuzz(options.cases, options.seed, options.first)
    for number, text in result.failures:
        print(f"case {number}:\n{text}")
    for outcome, count in sorted(result.outcomes.items()):
        print(f"{count:5} {outcome}")
    print(f"{result.pictures} pictures, {options.cases} cases, {len(result.failures)} wrong")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
