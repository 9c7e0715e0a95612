"""One TOML file per board."""
