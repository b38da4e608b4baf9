"""What the scripts share at the command line: what is wrong is said in one line, the exit status is 2."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


class Refused(Exception):
    """Nothing was written; the text says why, and what to do."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong without the usage of every option before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)} (--help says more)\n")


def printable(path: Path | str) -> str:
    """A file name may hold bytes that are no text: "?" instead."""
    return str(path).encode("utf-8", errors="replace").decode()


def one_line(error: BaseException | str) -> str:
    """The text of an error, or its class's name where it has none."""
    if isinstance(error, OSError) and error.strerror:  # without the file's name, which stands before it
        error = error.strerror
    text = " ".join(printable(str(error)).split()) or type(error).__name__
    return text if len(text) <= 600 else f"{text[:300]} ... {text[-300:]}"


def message(error: BaseException) -> str:
    """One line, with the file's name where the error has one."""
    file = getattr(error, "filename", None)
    return one_line(error) if file is None else f"{printable(file)}: {one_line(error)}"


def whole(low: int, high: int) -> Callable[[str], int]:
    """The `type` of an option: a whole number in [low, high]."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {text!r}")
        return value

    return number


def real(low: float, high: float) -> Callable[[str], float]:
    """The `type` of an option: a number in [low, high], which may be infinite."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low:g} to {high:g}, got {text!r}")
        return value

    return number
