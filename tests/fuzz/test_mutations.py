from __future__ import annotations

import json
import lzma
import random
import struct
import zlib
from xml.etree import ElementTree

import onnx
import pytest

from edgeseg.fuzz import fields_flatbuffer, fields_json, fields_media, fields_protobuf, fields_transport, fields_xml
from edgeseg.fuzz.mutations import FIELDS, Kind, flip, mutation
from edgeseg.fuzz.workbench import Workbench

TRIALS = 80


def content(bench: Workbench, kind: Kind) -> bytes:
    return bench.files[kind][0].read_bytes()


@pytest.mark.parametrize("kind", Kind)
def test_the_same_seed_makes_the_same_mutations_and_all_differ_from_the_original(bench: Workbench, kind: Kind) -> None:
    data = content(bench, kind)
    made = [mutation(kind, data, 3, index) for index in range(TRIALS)]
    assert made == [mutation(kind, data, 3, index) for index in range(TRIALS)]
    assert all(m.data != data for m in made)
    assert len({m.data for m in made}) > TRIALS // 2
    assert {m.data for m in made} != {mutation(kind, data, 4, index).data for index in range(TRIALS)}
    groups = {m.what.partition(":")[0] for m in made}
    assert groups == ({"bytes", "fields"} if kind in FIELDS else {"bytes"})


def changed(data: bytes, mutators: tuple, count: int = 40) -> list[bytes]:
    made = [m(data, random.Random(f"{m.__name__} {i}")) for m in mutators for i in range(count)]
    return [m for m in made if m != data]


def test_field_mutations_of_onnx_are_still_protobuf(bench: Workbench) -> None:
    data = content(bench, Kind.ONNX)
    assert len(fields_protobuf.fields(data)) > 30
    made = changed(data, fields_protobuf.MUTATORS)
    parsed = 0
    for mutant in made:
        try:
            onnx.load_from_string(mutant)
            parsed += 1
        except Exception:  # what is no utf-8 or nested too deeply is refused by the reader itself
            continue
    assert parsed > 0.8 * len(made)


def test_field_mutations_of_the_ir_are_still_xml(bench: Workbench) -> None:
    made = changed(content(bench, Kind.XML), fields_xml.MUTATORS)
    parsed = 0
    for mutant in made:
        try:
            ElementTree.fromstring(mutant)
            parsed += 1
        except ElementTree.ParseError:  # an attribute renamed to one that is there, or to a number
            continue
    assert parsed > 0.7 * len(made)


def test_the_structure_of_a_tflite_is_found(bench: Workbench) -> None:
    data = content(bench, Kind.TFLITE)
    found = fields_flatbuffer.places(data)
    assert min(map(len, (found.tables, found.entries, found.scalars, found.offsets, found.lengths))) >= 10
    assert all(len(m) == len(data) for m in changed(data, fields_flatbuffer.MUTATORS))


def test_field_mutations_of_a_png_have_right_checksums(bench: Workbench) -> None:
    for mutant in changed(content(bench, Kind.PNG), fields_media.PNG_MUTATORS[:-1]):
        at = 8
        while at < len(mutant):
            (size,) = struct.unpack_from(">I", mutant, at)
            checked = mutant[at + 4 : at + 8 + size]
            assert struct.unpack_from(">I", mutant, at + 8 + size)[0] == zlib.crc32(checked)
            at += size + 12


def test_half_of_the_changed_manifests_have_a_right_digest(bench: Workbench) -> None:
    from edgeseg.manifest import parse_manifest

    made = changed(content(bench, Kind.MANIFEST), fields_json.MUTATORS[:6])
    sealed = 0
    for mutant in made:
        json.loads(mutant)
        try:
            parse_manifest(mutant)
            sealed += 1
        except Exception:
            continue
    assert 0.25 * len(made) < sealed < 0.75 * len(made)


def test_field_mutations_of_the_transport_file_reach_the_archive(bench: Workbench) -> None:
    made = changed(content(bench, Kind.TRANSPORT), fields_transport.MUTATORS[5:], 10)
    archives = [lzma.decompress(mutant) for mutant in made]
    assert len(set(archives)) > len(archives) // 2


def test_a_flip_is_one_bit() -> None:
    assert flip(b"\x00\x00", 9) == b"\x00\x02"
