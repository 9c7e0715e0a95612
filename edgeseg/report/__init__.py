"""One self-contained page for whoever signs a release: what was measured, and every raw sample behind it."""
