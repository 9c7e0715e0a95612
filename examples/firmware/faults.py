"""What to do about an error, by its type: the one table that a product has to think through.

| error | what it means on a device | what is done |
|---|---|---|
| SignatureError | nobody whom the device trusts vouches for the bundle | the next bundle; stay down if none is left |
| BundleError, BundleTooNew | damaged on its way or on the disk; for newer software | the same |
| SelfTestFailed, ExecutionMismatch | the model does not do here what it did when it was verified | the same |
| MissingDependency | the device's image was built without an engine | stay down |
| BadInput, NoSuchDevice of the source | the probe was unplugged, the clip is damaged | open it again, for ever |
| BadInput before that | a link or a figure of the settings is none | stay down: bad settings |
| StreamFailed | every engine of the chain failed or hangs | end: a fresh process is started |
| other InferenceError | an engine failed, crashed or hung while it was loaded | the same |
| anything else | a fault of this program | the same, with a traceback in the log |
"""

from __future__ import annotations

from settings import SettingsError

from edgeseg import BadInput, BundleError, EdgesegError, ExecutionMismatch, MissingDependency
from edgeseg.errors import SelfTestFailed

STOPPED = 0
START_AGAIN = 1  # Restart=on-failure
BAD_SETTINGS = 2
STAY_DOWN = 3  # RestartPreventExitStatus=2 3
FAULT = 70

# Another bundle may be without it.
OF_THE_BUNDLE = (BundleError, SelfTestFailed, ExecutionMismatch)


def exit_code(error: Exception) -> int:
    """How the process ends for an error that it cannot get over."""
    if isinstance(error, (SettingsError, BadInput)):
        return BAD_SETTINGS
    if isinstance(error, (*OF_THE_BUNDLE, MissingDependency)):
        return STAY_DOWN
    return START_AGAIN if isinstance(error, EdgesegError) else FAULT
