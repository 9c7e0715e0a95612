"""Scripts that a runner has the board's Python run: the standard library only, nothing of them is installed there."""
