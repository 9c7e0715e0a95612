"""The embedded default: a trained checkpoint, a few licensed real frames with masks, and tiny probe models."""
