"""Where frames come from beside files: cameras, pipes, shared memory, OpenIGTLink, and any of them at a fixed rate."""

from __future__ import annotations

from edgeseg.sources.opening import open_source as open_source
from edgeseg.sources.pacing import paced as paced
