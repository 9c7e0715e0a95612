"""The frontier of a set of measured models: which point is the best trade of accuracy against latency and size."""
