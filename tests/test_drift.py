"""The drift measurement itself, over a short run."""

from __future__ import annotations

import numpy as np
import pytest

from tests.drift import SHAPES, drift, network


@pytest.mark.parametrize("shape", SHAPES)
def test_drift_stays_far_within_the_promise(shape: str) -> None:
    net = network(shape, SHAPES[shape], np.random.default_rng(0))
    result = drift(net, 2000, seed=1)
    assert len(result["points"]) == 10
    assert 0.0 < float(result["largest"]) < 1e-12
