"""Numba kernels: flat arrays in, flat arrays out, a status code back."""
