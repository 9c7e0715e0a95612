"""The hostile corpus as a whole."""

from __future__ import annotations

from edgeseg.fuzz.corpus import Case
from edgeseg.fuzz.corpus_archives import CASES as ARCHIVES
from edgeseg.fuzz.corpus_bundles import CASES as BUNDLES
from edgeseg.fuzz.corpus_dicom import CASES as DICOM
from edgeseg.fuzz.corpus_images import CASES as IMAGES
from edgeseg.fuzz.corpus_models import CASES as MODELS

CASES: tuple[Case, ...] = (*ARCHIVES, *BUNDLES, *DICOM, *IMAGES, *MODELS)
