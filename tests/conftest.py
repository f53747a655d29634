"""What all tests share: Hypothesis profiles, a seeded generator, the agents, no idle skips."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# No test needs a screen; set before anything imports pygame or Matplotlib.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
# Workers share the cores: threads of torch on top of that wait for one another, for minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A draw may be followed by a compilation, so neither a deadline nor "too slow" means anything.
_SETTINGS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, **_SETTINGS)
settings.register_profile("nojit", settings.get_profile("ci"), max_examples=10)
settings.register_profile("dev", max_examples=20, **_SETTINGS)
settings.register_profile("thorough", max_examples=1000, **_SETTINGS)


def _jit_disabled() -> bool:
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


if _jit_disabled():
    # Compiled kernels overflow without a word; as plain Python they would warn, and fail.
    np.seterr(all="ignore")

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "nojit" if _jit_disabled() else "ci"))

ROOT = Path(__file__).resolve().parent.parent
AGENTS_ABSENT = "no trained agents"


@pytest.fixture(scope="session")
def agents_dir() -> Path:
    """The folder of trained agents: EVENTSIM_AGENTS, or a folder beside the checkout."""
    folder = Path(os.environ.get("EVENTSIM_AGENTS", ROOT.parent / "shared" / "policies"))
    if not folder.is_dir():
        pytest.skip(f"{AGENTS_ABSENT} at {folder}; set EVENTSIM_AGENTS to their folder")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts from the same seed in every test."""
    return np.random.default_rng(20220104)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --forbid-skips: with every extra installed, only absent agents excuse a skip."""
    parser.addoption(
        "--forbid-skips",
        action="store_true",
        help="fail what is skipped for another reason than absent agents",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what reads the agents, so that `-m agents` finds it all."""
    for item in items:
        if "agents_dir" in getattr(item, "fixturenames", ()):
            item.add_marker("agents")


def _refuse_skip(config: pytest.Config, report: pytest.CollectReport | pytest.TestReport) -> None:
    if not (config.getoption("forbid_skips") and report.skipped) or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if AGENTS_ABSENT not in reason:
        report.outcome = "failed"
        report.longrepr = f"skipped, though --forbid-skips was given: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Hold --forbid-skips against whole modules."""
    report = yield
    _refuse_skip(collector.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hold --forbid-skips against single tests."""
    report = yield
    _refuse_skip(item.config, report)
    return report
