"""Energy profiles of devices, one TOML file each."""
