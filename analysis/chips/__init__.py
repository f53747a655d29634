"""Limits of chips, one TOML file each."""
