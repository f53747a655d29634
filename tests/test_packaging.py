"""The package as it is listed, built, installed and imported."""

from __future__ import annotations

import configparser
import functools
import importlib
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import eventsim

ROOT = Path(__file__).resolve().parent.parent
# Package -> the folder at the root that holds it.
FOLDERS = {"eventsim": "eventsim", "eventsim.models": "models", "eventsim.analysis": "analysis"}
LINKS = ("models", "analysis")


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def entries(config: configparser.ConfigParser, section: str, option: str) -> list[str]:
    """The lines, or the comma-separated words, of one option."""
    return [word.strip() for word in re.split(r"[\n,]", config[section][option]) if word.strip()]


def python_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(parent, name) for name in files if name.endswith(".py"))


def packages_on_disk() -> dict[str, Path]:
    """Every folder that holds an __init__.py, by the name of its package."""
    found = {}
    for package, folder in FOLDERS.items():
        for file in python_files(ROOT / folder):
            if file.name == "__init__.py":
                inner = file.parent.relative_to(ROOT / folder).parts
                found[".".join((package, *inner))] = file.parent
    return found


def expected_files(config: configparser.ConfigParser) -> set[str]:
    """What a wheel must hold: the sources and the data that setup.cfg names."""
    expected = set()
    for package, folder in packages_on_disk().items():
        patterns = ["*.py"]
        if config.has_option("options.package_data", package):
            patterns += entries(config, "options.package_data", package)
        inside = package.replace(".", "/")
        expected |= {
            f"{inside}/{path.relative_to(folder).as_posix()}"
            for pattern in patterns
            for path in folder.glob(pattern)
        }
    return expected


def run(*command: object, cwd: Path, **variables: str) -> str:
    """Run a command that inherits neither PYTHONPATH nor pip's settings; return its stdout."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and k[:4] != "PIP_"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=inherited | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_packages_are_the_folders(config: configparser.ConfigParser) -> None:
    assert sorted(entries(config, "options", "packages")) == sorted(packages_on_disk())


def test_package_dir_maps_the_root_folders(config: configparser.ConfigParser) -> None:
    pairs = (entry.split("=") for entry in entries(config, "options", "package_dir"))
    assert {package.strip(): folder.strip() for package, folder in pairs} == FOLDERS


@pytest.mark.parametrize("name", LINKS)
def test_link_is_relative(name: str) -> None:
    assert os.readlink(ROOT / "eventsim" / name) == os.path.join("..", name)


def test_every_source_lies_in_a_package() -> None:
    folders = set(packages_on_disk().values())
    for folder in FOLDERS.values():
        strays = [file for file in python_files(ROOT / folder) if file.parent not in folders]
        assert not strays


def test_setup_cfg_is_the_only_metadata(config: configparser.ConfigParser) -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "project" not in pyproject
    assert "setuptools" not in pyproject["tool"]
    assert not (ROOT / "setup.py").exists()
    assert config["metadata"]["version"] == eventsim.__version__
    assert config["metadata"]["license_expression"] == "BSD-3-Clause"
    assert entries(config, "options.entry_points", "console_scripts") == [
        "eventsim = eventsim.cli:main"
    ]


def test_extras(config: configparser.ConfigParser) -> None:
    promised = {"train", "onnx", "nir", "spikes", "cluster", "atari", "box2d", "mujoco", "dev"}
    assert set(config["options.extras_require"]) == promised | {
        "test",
        "minatar",
        "snntorch",
        "video",
    }


def test_constraints_pin_what_setup_cfg_allows(config: configparser.ConfigParser) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {}
    for line in lines:
        if not line.startswith("#"):
            name, version = line.split("==")
            pins[canonicalize_name(name)] = Version(version)
    required = entries(config, "options", "install_requires")
    for extra in config["options.extras_require"]:
        required += entries(config, "options.extras_require", extra)
    for text in required:
        requirement = Requirement(text)
        if requirement.name != "eventsim":
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_import_loads_nothing_heavy() -> None:
    heavy = {"numba", "gymnasium", "scipy", "matplotlib", "networkx", "pandas", "pyarrow", "torch"}
    code = "import sys, eventsim; print(*sys.modules, sep='\\n')"
    assert not heavy & set(run(sys.executable, "-c", code, cwd=ROOT).split())


def test_root_imports_without_an_install() -> None:
    # An editable install adds a finder of its own: without it, only the links can answer.
    code = """
import sys
sys.meta_path = [f for f in sys.meta_path if "editable" not in f"{f!r} {type(f)!r}".lower()]
sys.path = [entry for entry in sys.path if "__editable__" not in entry]
import eventsim.models.importers, eventsim.analysis.profiles
print(eventsim.models.__file__, eventsim.analysis.__file__)
"""
    files = [str(ROOT / "eventsim" / name / "__init__.py") for name in LINKS]
    assert run(sys.executable, "-c", code, cwd=ROOT).split() == files


def undocumented_methods(cls: type) -> Iterator[str]:
    """Public methods and properties that have no docstring and inherit none."""
    for name, member in vars(cls).items():
        method = getattr(member, "__func__", member)
        kinds = types.FunctionType | property | functools.cached_property
        if name.startswith("_") or not isinstance(method, kinds):
            continue
        if not inspect.getdoc(method):
            yield f"{cls.__module__}.{cls.__qualname__}.{name}"


def test_every_module_imports_without_extras_and_documents_its_methods() -> None:
    missing: list[str] = []
    for found in pkgutil.walk_packages(eventsim.__path__, "eventsim."):
        module = importlib.import_module(found.name)
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ == found.name and not name.startswith("_"):
                missing += undocumented_methods(cls)
    assert not missing


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads, links included, so that nothing lands in the checkout."""
    copy = tmp_path_factory.mktemp("tree") / "eventsim"
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.name in FOLDERS.values():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, copy / path.name, symlinks=True, ignore=ignored)
        elif path.is_file():
            shutil.copy2(path, copy)
    return copy


def build_wheel(source: Path, out: Path) -> Path:
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    run(sys.executable, "-m", "pip", "wheel", *flags, "-w", out, source, cwd=out)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tree, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.mark.slow
def test_wheel_holds_the_packages_and_their_data(
    wheel: Path, config: configparser.ConfigParser
) -> None:
    assert contents(wheel) == expected_files(config)


@pytest.mark.slow
def test_sdist_builds_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    run(sys.executable, "-c", code, cwd=tree)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    # The links would carry every file a second time.
    assert not [name for name in names if re.search(r"/eventsim/(models|analysis)(/|$)", name)]
    assert contents(build_wheel(sdist, tmp_path)) == contents(wheel)


@pytest.mark.slow
def test_installed_wheel_leaves_models_and_analysis_free(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    flags = ["--no-deps", "--no-index", "--quiet", "--target", site]
    run(sys.executable, "-m", "pip", "install", *flags, wheel, cwd=elsewhere)
    code = """
import importlib.util, eventsim.models.zoo, eventsim.analysis.profiles
print(eventsim.models.__file__, eventsim.analysis.__file__)
print(importlib.util.find_spec("models"), importlib.util.find_spec("analysis"))
"""
    printed = run(sys.executable, "-c", code, cwd=elsewhere, PYTHONPATH=str(site))
    files = [str(site / "eventsim" / name / "__init__.py") for name in LINKS]
    assert printed.split() == [*files, "None", "None"]
    assert list((site / "bin").glob("eventsim*"))


#: Of a peer that has an environment of its own.
ELSEWHERE = ("reference_neurobench",)
MEASUREMENTS = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if not path.stem.startswith("test_") and path.stem not in ELSEWHERE
)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_what_measures_still_imports(name: str) -> None:
    try:
        importlib.import_module(f"tests.{name}")
    except ModuleNotFoundError as error:
        # An extra that is not installed.
        if str(error.name).split(".")[0] in ("eventsim", "tests"):
            raise
        pytest.skip(f"{error.name} is not installed")
