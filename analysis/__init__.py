"""Analysis of recorded runs: sparsity, rasters, energy, reports."""
