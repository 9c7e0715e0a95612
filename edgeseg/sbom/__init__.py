"""The software bill of materials of a bundle: what it is made of, by hash, and what is known against its engines."""

from __future__ import annotations

from edgeseg.sbom.document import bill_of_materials
from edgeseg.sbom.lineage import gaps

__all__ = ["bill_of_materials", "gaps"]
