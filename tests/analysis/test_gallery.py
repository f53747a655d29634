"""Every script of the gallery makes its picture, and every plotting function has one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from eventsim.analysis import plots

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
SCRIPTS = sorted(path for path in GALLERY.glob("*.py") if path.stem != "example")
FUNCTIONS = {"raster", *plots.__all__} - {"projection_synops"}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Import a script as if it had been started in its folder."""
    monkeypatch.syspath_prepend(str(GALLERY))

    def load(path: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"gallery_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.delitem(sys.modules, "example", raising=False)
        return module

    return load


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_makes_its_picture(script: Path, load, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from matplotlib.image import imread

    path = load(script).main(tmp_path)
    assert path.parent == tmp_path
    assert path.stem == script.stem
    picture, shipped = imread(path), imread(GALLERY / path.name)
    assert picture.shape == shipped.shape
    # Not blank: both dark ink and white paper.
    assert picture[..., :3].min() < 0.3
    assert picture[..., :3].max() > 0.99
    # The shipped picture is that of the script, but for the antialiasing of other versions.
    assert abs(float(picture.mean()) - float(shipped.mean())) < 0.01


def test_every_plotting_function_has_a_script_and_a_place_on_the_page() -> None:
    page = (GALLERY / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in SCRIPTS} >= FUNCTIONS
    for path in SCRIPTS:
        assert f"({path.name})" in page
        assert f"({path.stem}.png)" in page
