"""The embedded default: a trained checkpoint, a few licensed real frames with masks, and tiny probe models.

`MODEL_CARD.md` beside this file says what the checkpoint is, what it was trained on, and that it is no medical device.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent
CHECKPOINT = ROOT / "mobilenetv2-unet-hc18.safetensors"
FRAMES = ROOT / "frames"
PROBES = ROOT / "probe"
