"""Assembles 43 free photographs to train on from packages of Debian.

    python examples/data.py --from-debian photographs
    python examples/denoise_demosaic.py --data photographs

Downloads about 590 MB by apt-get (nothing is installed, no root needed), takes the photographs out,
averages squares of pixels so that at most 1000 a side remain, and writes them as PNG with
MANIFEST.csv. The packages' copyright files, which say the licences, go to photographs/copyright.
"""

import csv
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from restoration.command import Parser, Refused, message, printable
from restoration.data import LONGEST
from restoration.files import check_writable, replacing, write_text

# Chosen by eye: photographs, sharp, at least 1600 pixels wide, and none of examples/photos/eval, which
# tests what these have trained. {package: (path, names)}
PHOTOGRAPHS = {
    "enlightenment-data": (
        "usr/share/enlightenment/data/backgrounds/{}.edj",
        "Bamboo Lichen-Branches Red-Maple Sea-of-Lanterns Spruce-Needles Sunset-Clouds White-Flower "
        "Yellow-Flower",
    ),
    "lomiri-wallpapers-16.04": (
        "usr/share/backgrounds/{}.jpg",
        "Bridge_by_Sander_Klootwijk Dragonfly_by_Bolly Picture_0B_by_freespace Wine_by_Jakkub_Mede "
        "aitzgorri_by_Aitzol_Berasategi friends_by_Aitzol_Berasategi greentock_by_Peter_Nerlich "
        "picosdeeuropa_by_Aitzol_Berasategi seeding_by_Clements_Engelhardt sunset_by_Aitzol_Berasategi",
    ),
    "lomiri-wallpapers-20.04": ("usr/share/backgrounds/{}.jpg", "Kleiber_by_Lukas_Baubkus"),
    "lxqt-themes": (
        "usr/share/lxqt/wallpapers/{}.png",
        "Valendas appleflower beam butterfly cloud drop flowers",
    ),
    "mate-backgrounds": (
        "usr/share/backgrounds/mate/nature/{}.jpg",
        "Blinds Dune Garden LadyBird RainDrops Storm TwoWings YellowFlower",
    ),
    "plasma-workspace-wallpapers": (
        "usr/share/wallpapers/{}/contents/images/2560x1600.jpg",
        "BytheWater ColorfulCups EveningGlow FallenLeaf Grey Kite OneStandsOut Path summer_1am",
    ),
}


def members(package: Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the files in a .deb."""
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpack,
        tarfile.open(fileobj=unpack.stdout, mode="r|") as archive,
    ):
        for member in archive:
            if member.isfile():
                yield member.name.removeprefix("./"), archive.extractfile(member).read()


def picture(name: str, content: bytes) -> Image.Image:
    """An .edj file holds the picture at several sizes, as JPEG: the largest."""
    starts = [m.start() for m in re.finditer(b"\xff\xd8\xff", content)] if name.endswith(".edj") else [0]
    found = []
    for start in starts:
        try:
            found.append(Image.open(io.BytesIO(content[start:])))
        except Exception:  # the three bytes were something else, and Pillow raises nearly anything
            continue
    return max(found, key=lambda image: image.width * image.height).convert("RGB")


def assemble(package: Path, folder: Path) -> list[dict[str, object]]:
    """The lines of the manifest for a package's photographs, which are written to the folder."""
    name, version = package.stem.replace("%3a", ":").split("_")[:2]
    pattern, names = PHOTOGRAPHS[name]
    wanted = {pattern.format(photograph): photograph for photograph in names.split()}
    lines = []
    for path, content in members(package):
        if path == f"usr/share/doc/{name}/copyright":
            write_text(folder / "copyright" / f"{name}.txt", content.decode("utf-8", errors="replace"))
        if path not in wanted:
            continue
        full = picture(path, content)
        factor = -(-max(full.size) // LONGEST)
        whole = full.crop((0, 0, full.width // factor * factor, full.height // factor * factor))
        small = whole.reduce(factor)  # means of factor x factor pixels
        file = f"{name}-{wanted.pop(path)}.png"
        with replacing(folder / file) as part:
            small.save(part, "PNG")
        lines.append(
            {
                "file": file, "width": small.width, "height": small.height,
                "source": f"debian:{name}={version}", "source_path": path,
                "original": f"{full.width}x{full.height}", "area_factor": factor,
                "licence": f"copyright/{name}.txt",
                "sha256": hashlib.sha256(small.tobytes()).hexdigest(),
            }
        )  # fmt: skip
        print(f"{file}: {small.width}x{small.height}", flush=True)
    for path in wanted:
        print(f"{name} {version} lacks {path}", file=sys.stderr)
    return lines


def main() -> int:
    arguments = Parser(description=__doc__.splitlines()[0])
    arguments.add_argument("--from-debian", type=Path, metavar="DIR", required=True, help="where to")
    folder = arguments.parse_args().from_debian
    try:
        check_writable(folder / "MANIFEST.csv")
        if folder.exists() and any(folder.iterdir()):
            raise Refused(f"{printable(folder)} holds other files; name a new one")
    except (Refused, OSError, ValueError) as error:
        print(f"data.py: {message(error)}", file=sys.stderr)
        return 2
    lines: list[dict[str, object]] = []
    for name in PHOTOGRAPHS:  # one at a time: each may be large
        with tempfile.TemporaryDirectory() as download:
            try:
                subprocess.run(["apt-get", "download", "-q", name], cwd=download, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"data.py: no package {name}: {error}; go on without", file=sys.stderr)
                continue
            lines += assemble(next(Path(download).glob("*.deb")), folder)
    if not lines:
        print("data.py: nothing found; it needs apt-get and dpkg-deb, apt-get update first", file=sys.stderr)
        return 2
    with replacing(folder / "MANIFEST.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    print(f"{folder}: {len(lines)} photographs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
