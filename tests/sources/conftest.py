"""What the tests of several sources share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from edgeseg.frame_source import FrameItem, FrameSource


@pytest.fixture
def close_while_read() -> Callable[[FrameSource], list[FrameItem]]:
    """Close a source that another thread waits for a frame of, which must end that soon; what the thread was given."""

    def close(source: FrameSource) -> list[FrameItem]:
        found: list[FrameItem] = []
        reader = threading.Thread(target=lambda: found.extend(source))
        reader.start()
        time.sleep(0.25)
        assert reader.is_alive()
        start_s = time.monotonic()
        source.close()
        reader.join(5)
        assert not reader.is_alive()
        assert time.monotonic() - start_s < 0.5
        return found

    return close
