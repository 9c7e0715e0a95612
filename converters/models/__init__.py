"""The reference segmenters."""
