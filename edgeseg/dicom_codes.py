"""What a class is called in DICOM: coded terms for class names, from a table and from files of codes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeseg.errors import BadInput

_PRIVATE_SCHEME = "99EDGESEG"
_LONGEST_VALUE, _LONGEST_SCHEME, _LONGEST_MEANING = 16, 16, 64


@dataclass(frozen=True, slots=True)
class Code:
    """A coded term: its value in a coding scheme (SCT is SNOMED CT), and its meaning for people."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class SegmentCode:
    """What a segment is.

    Attributes:
        category: of the segmented property (DICOM CID 7150).
        type: of the segmented property (CID 7151).
        modifier: of the type, or None.
    """

    category: Code
    type: Code
    modifier: Code | None = None


ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
OBJECT = Code("260787004", "SCT", "Physical object")
SPATIAL = Code("309825002", "SCT", "Spatial and Relational Concept")

FETUS = Code("121026", "DCM", "Fetus")

# SNOMED CT as DICOM PS3.16 lists it (CID 7151).
_KNOWN = {
    ANATOMY: {
        "head": ("69536005", "Head"),
        "abdomen": ("818981001", "Abdomen"),
        "aorta": ("15825003", "Aorta"),
        "artery": ("51114001", "Artery"),
        "bladder": ("89837001", "Bladder"),
        "blood vessel": ("59820001", "Blood Vessel"),
        "breast": ("76752008", "Breast"),
        "carotid artery": ("69105007", "Carotid Artery"),
        "common carotid artery": ("32062004", "Common carotid artery"),
        "femoral artery": ("7657000", "Femoral artery"),
        "femur": ("71341001", "Femur"),
        "gallbladder": ("28231008", "Gallbladder"),
        "heart": ("80891009", "Heart"),
        "inferior vena cava": ("64131007", "Inferior vena cava"),
        "kidney": ("64033007", "Kidney"),
        "left atrium": ("82471001", "Left atrium"),
        "left ventricle": ("87878005", "Left ventricle"),
        "liver": ("10200004", "Liver"),
        "lung": ("39607008", "Lung"),
        "nerve": ("91728009", "Nerve"),
        "ovary": ("15497006", "Ovary"),
        "pancreas": ("15776009", "Pancreas"),
        "placenta": ("78067005", "Placenta"),
        "pleura": ("3120008", "Pleura"),
        "prostate": ("41216001", "Prostate"),
        "rib": ("113197003", "Rib"),
        "right atrium": ("73829009", "Right atrium"),
        "right ventricle": ("53085002", "Right ventricle"),
        "skull": ("89546000", "Skull"),
        "spleen": ("78961009", "Spleen"),
        "thyroid": ("69748006", "Thyroid"),
        "uterus": ("35039007", "Uterus"),
        "vein": ("29092000", "Vein"),
    },
    ABNORMAL: {
        "cyst": ("367643001", "Cyst"),
        "lesion": ("52988006", "Lesion"),
        "nodule": ("27925004", "Nodule"),
        "tumor": ("108369006", "Neoplasm"),
    },
    OBJECT: {
        "catheter": ("19923001", "Catheter"),
        "needle": ("79068005", "Needle"),
    },
}
TABLE = {
    name: SegmentCode(category, Code(value, "SCT", meaning))
    for category, types in _KNOWN.items()
    for name, (value, meaning) in types.items()
}
# The editorial guide of SNOMED International wants the general structure for that of a fetus; codes of fetal
# structures, such as 54527006 of the head, are to be withdrawn.
_OF_A_FETUS = ("abdomen", "femur", "head", "heart", "kidney")
TABLE |= {f"fetal {name}": replace(TABLE[name], modifier=FETUS) for name in _OF_A_FETUS}


def code_of(label: str, own: Mapping[str, SegmentCode] | None = None) -> SegmentCode:
    """The code of a class by its name, without regard to case, `-` and `_`.

    Args:
        label: name of the class.
        own: codes that come before those of the table, by name, as `read_codes` gives them.

    Returns:
        A code of `own`, of the table, or else a private one: a spatial concept whose type has the name itself, in the
        coding scheme 99EDGESEG.
    """
    name = _plain(label)
    found = (own or {}).get(name) or TABLE.get(name)
    if found:
        return found
    value = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")[:_LONGEST_VALUE] or "SEGMENT"
    return SegmentCode(SPATIAL, Code(value, _PRIVATE_SCHEME, label[:_LONGEST_MEANING] or "segment"))


def read_codes(path: Path) -> dict[str, SegmentCode]:
    """Codes of classes from a TOML file: for each class a table of `type`, `category` (anatomy by default), `modifier`.

    ["fetal head"]
    category = ["91723000", "SCT", "Anatomical Structure"]
    type = ["69536005", "SCT", "Head"]
    modifier = ["121026", "DCM", "Fetus"]

    Raises:
        BadInput: the file cannot be read or says something else.
    """
    try:
        with path.open("rb") as stream:
            tables = tomllib.load(stream)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no TOML file: {' '.join(str(error).split())}") from error
    return {_plain(label): _segment_code(path, label, table) for label, table in tables.items()}


def _plain(label: str) -> str:
    return " ".join(re.sub(r"[-_]", " ", label).casefold().split())


def _segment_code(path: Path, label: str, table: Any) -> SegmentCode:
    if not isinstance(table, dict) or "type" not in table or table.keys() - {"type", "category", "modifier"}:
        raise BadInput(f"{path}: class {label!r} must be a table of type and, where needed, category and modifier")
    codes = {name: _code(path, label, words) for name, words in table.items()}
    return SegmentCode(**({"category": ANATOMY} | codes))


def _code(path: Path, label: str, words: Any) -> Code:
    limits = (_LONGEST_VALUE, _LONGEST_SCHEME, _LONGEST_MEANING)
    if (
        not isinstance(words, list)
        or len(words) != len(limits)
        or not all(isinstance(w, str) and 0 < len(w) <= limit for w, limit in zip(words, limits, strict=True))
        or any("\\" in w or not w.isprintable() for w in words)
    ):
        expected = '["value", "scheme", "meaning"] of at most 16, 16 and 64 characters'
        raise BadInput(f"{path}: a code of class {label!r} is {words!r}, expected {expected}")
    return Code(*words)
