"""The documentation: it is built without a warning, its links lead somewhere, its Python runs."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ssimloss

ROOT = Path(__file__).parent.parent
WITH_PYTHON = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)([^)\s#]+)[^)]*\)")


def test_it_is_built_without_a_warning(tmp_path: Path) -> None:
    """Sphinx looks at links between pages, and at names in docstrings."""
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-E", "-d", tmp_path / "trees", "-c", "docs"]
    done = subprocess.run([*command, ".", tmp_path / "html"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "url=docs/index.html" in (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    assert {page.with_suffix(".html").name for page in WITH_PYTHON[1:]} <= {
        page.name for page in (tmp_path / "html" / "docs").iterdir()
    }


def test_every_public_name_is_described() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    missing = [name for name in ssimloss.__all__ if not re.search(rf"auto\w+:: ssimloss\.{name}\n", text)]
    assert not missing


def test_links_lead_somewhere() -> None:
    """Of every text of the repository, those that are no page of the documentation among them."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in listed.stdout.split()] or sorted(ROOT.rglob("*.md"))
    links = [(file, link) for file in files for link in LINK.findall(file.read_text(encoding="utf-8"))]
    assert len(links) > 50
    assert not [(file, link) for file, link in links if not (file.parent / link).exists()]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_its_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's blocks in their order, with each other's names; of >>> the output must be what is there."""
    monkeypatch.chdir(tmp_path)
    text, names = page.read_text(encoding="utf-8"), {"__name__": page.stem}
    runner, said = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE), []
    for block in PYTHON.finditer(text):
        line = text.count("\n", 0, block.start(1))
        if block[1].startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(block[1], {}, page.name, str(page), line)
            test.globs = names
            runner.run(test, out=said.append, clear_globs=False)
        else:
            exec(compile("\n" * line + block[1], page, "exec"), names)
    assert not said, "".join(said)
