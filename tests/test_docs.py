"""Every example in the docs and docstrings runs, and prints what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.conftest import ROOT

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A page or module whose examples need an extra, and one library of that extra.
NEEDS: dict[str, str] = {
    "optimize.md": "torch",
    "convolution.md": "torch",
    "eventsim.models.importers.torch_modules": "torch",
}


def modules() -> list[str]:
    """Names of all modules with examples, without importing them."""
    names = []
    for folder, package in (
        ("eventsim", "eventsim"),
        ("models", "eventsim.models"),
        ("analysis", "eventsim.analysis"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            linked = folder == "eventsim" and parts[0] in ("models", "analysis")
            if not linked and ">>>" in path.read_text(encoding="utf-8"):
                names.append(".".join([package, *parts]).removesuffix(".__init__"))
    return names


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_examples_of_a_page(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if path.name in NEEDS:
        pytest.importorskip(NEEDS[path.name], reason=f"{path.name} needs {NEEDS[path.name]}")
    result = doctest.testfile(str(path), module_relative=False, optionflags=FLAGS)
    assert result.failed == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", modules())
def test_examples_of_a_module(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{name} needs {NEEDS[name]}")
    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.attempted > 0
    assert result.failed == 0, capsys.readouterr().out
