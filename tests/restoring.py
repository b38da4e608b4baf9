"""examples/restore.py and pictures to try on it; its fixtures are in conftest.py."""

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import restore  # noqa: F401
from restoration import pictures  # noqa: F401


def noise(height: int, width: int, channels: int = 3, top: int = 256) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    numbers = np.random.default_rng(0).integers(top // 6, top * 5 // 6, shape)
    return numbers.astype(np.uint8 if top == 256 else np.uint16)


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    error = ((a.astype(float) - b.astype(float)) ** 2).mean()
    return 10 * np.log10(255**2 / error) if error else np.inf


def image_of(mode: str, height: int = 24, width: int = 30) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(noise(height, width, 1, top=65536))
    return Image.fromarray(noise(height, width, 4)).convert(mode)


def levels(result: torch.Tensor, bits: int) -> np.ndarray:
    """The network's output [H, W, C] as 8 or 16 bits."""
    values = result.permute(1, 2, 0).numpy()
    if values.dtype == np.uint16 and bits == 8:
        values = np.round(values / 257)
    return values.astype(float)


def png_chunks(chunks: list[tuple[bytes, bytes]]) -> bytes:
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
