"""The same suite on every board: deploy, verify, warm up, bench, soak, and one record of all of it."""
