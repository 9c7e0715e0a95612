"""The embedded default: a trained checkpoint, its edge student, a few licensed frames with masks, tiny probe models.

`MODEL_CARD.md` beside this file says what the checkpoints are and were trained on, and that they are no medical device.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent
CHECKPOINT = ROOT / "mobilenetv2-unet-hc18.safetensors"
STUDENT = ROOT / "edge-unet-hc18.safetensors"
STUDENT_RECIPE = ROOT / "edge-unet-hc18.toml"
FRAMES = ROOT / "frames"
PROBES = ROOT / "probe"
