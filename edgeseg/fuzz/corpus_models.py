"""Hostile models: as SOURCE of a conversion, and as artifacts of a bundle whose hashes are right."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from edgeseg.fuzz.corpus import Case, Scene, artifact, convert, hostile_bundle
from edgeseg.fuzz.fields_flatbuffer import places
from edgeseg.fuzz.onnx_wire import (
    BOOL,
    INT64,
    Graph,
    Tensor,
    external,
    function,
    graph,
    int64s,
    model,
    node,
    scalar,
    tensor,
    value,
)
from edgeseg.plugins import ENGINE_OF
from edgeseg.types import Format

_TRIPS = 2**62

Shape = tuple[int, ...]
# A model for an image of a shape [1, C, H, W].
Draft = Callable[[Shape], bytes]


def _network(
    nodes: Sequence[bytes],
    constants: Sequence[bytes] = (),
    functions: Sequence[bytes] = (),
    *,
    batch: int = 1,
    grown: int = 0,
) -> Draft:
    """A model from an image x [1, C, H, W] to y [batch, C, H + grown, W + grown]."""

    def draft(image: Shape) -> bytes:
        _, channels, height, width = image
        shape = (batch, channels, height + grown, width + grown)
        return model(graph(nodes, [value("x", image)], [value("y", shape)], constants), functions)

    return draft


def _filled(*shape: int) -> Draft:
    """x plus the sum of a tensor of this shape, which a short constant asks for."""
    nodes = (node("ConstantOfShape", ["s"], ["c"]), node("ReduceSum", ["c"], ["r"]), node("Add", ["x", "r"], ["y"]))
    return _network(nodes, [int64s("s", *shape)])


def _expanded(times: int) -> Draft:
    """x so many times while it runs, which no optimizer can do before."""
    nodes = (node("Expand", ["x", "s"], ["e"]), node("Exp", ["e"], ["f"]), node("Mul", ["f", "e"], ["y"]))
    return _network(nodes, [int64s("s", times, 1, 1, 1)], batch=times)


def _loop(body: Graph | None = None) -> Draft:
    """x, changed 2^62 times."""
    loop = node("Loop", ["trips", "go", "x"], ["y"], body=body or _step())
    return _network([loop], [scalar("trips", _TRIPS), scalar("go", 1, BOOL)])


def _step(level: int = 0, inner: Graph | None = None) -> Graph:
    """The body of a loop at a level, with another loop in it or none; names are not used twice, which ONNX forbids."""
    i, on, still, a, b, c = (f"{name}{level}" for name in ("i", "on", "still", "a", "b", "c"))
    nodes = [node("Identity", [on], [still]), node("Abs", [a], [b])]
    if inner is not None:
        nodes.append(node("Loop", ["trips", "go", b], [c], body=inner))
    inputs = [value(i, (), INT64), value(on, (), BOOL), value(a, None)]
    return graph(nodes, inputs, [value(still, (), BOOL), value(b if inner is None else c, None)])


def _nested_loops(depth: int) -> Draft:
    body = _step()
    for level in range(1, depth + 1):
        body = _step(level, body)
    return _loop(body)


def _nested_ifs(depth: int) -> Draft:
    branch = graph([node("Identity", ["x"], ["z"])], [], [value("z", None)])
    for _ in range(depth):
        branch = graph([node("If", ["go"], ["z"], then_branch=branch, else_branch=branch)], [], [value("z", None)])
        if len(branch) > 1 << 22:
            break
    return _network([node("If", ["go"], ["y"], then_branch=branch, else_branch=branch)], [scalar("go", 1, BOOL)])


def _deep_scan(depth: int) -> Draft:
    body = graph([node("Identity", ["a"], ["b"])], [value("a", None)], [value("b", None)])
    for _ in range(depth):
        body = graph([node("Scan", ["a"], ["b"], body=body, num_scan_inputs=1)], [value("a", None)], [value("b", None)])
    return _network([node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)])


def _recursive_function() -> Draft:
    own = function("again", [node("again", ["x"], ["y"], domain="f")])
    return _network([node("again", ["x"], ["y"], domain="f")], functions=[own])


def _doubling_functions(count: int) -> Draft:
    """Each function calls the next one twice: 2^count nodes when they are inlined."""
    functions = [function("f0", [node("Abs", ["x"], ["y"])])]
    for index in range(1, count):
        calls = [node(f"f{index - 1}", ["x"], ["m"], domain="f"), node(f"f{index - 1}", ["m"], ["y"], domain="f")]
        functions.append(function(f"f{index}", calls))
    return _network([node(f"f{count - 1}", ["x"], ["y"], domain="f")], functions=functions)


def _padded(edge: int) -> Draft:
    pads = int64s("p", 0, 0, edge, edge, 0, 0, edge, edge)
    return _network([node("Pad", ["x", "p"], ["y"])], [pads], grown=2 * edge)


def endless_models() -> dict[str, bytes]:
    """Models that load and then run for ever, by name."""
    drafts = {"a loop without end": _loop(), "20 loops in each other": _nested_loops(20)}
    return {name: draft((1, 1, 8, 8)) for name, draft in drafts.items()}


def _added(constant: Tensor, batch: int = 1) -> Draft:
    return _network([node("Add", ["x", "w"], ["y"])], [constant], batch=batch)


def _external(scene: Scene, location: Path | str) -> bytes:
    return _added(external("w", (1,), location, 4))(_image(scene))


def _image(scene: Scene) -> Shape:
    size = scene.bundle.preprocess
    return 1, size.channels, size.height, size.width


def _linked(scene: Scene, link: Callable[[Path, Path], None]) -> list[str]:
    link(scene.secret, scene.folder / "weights.bin")
    return convert(scene, scene.file("a.onnx", _external(scene, "weights.bin")))


def _source(data: Callable[[Scene], bytes]) -> Callable[[Scene], list[str]]:
    return lambda scene: convert(scene, scene.file("a.onnx", data(scene)))


def _bundled(format: Format, change: Callable[[bytes, Scene], bytes]) -> Callable[[Scene], list[str]]:
    """A bundle with one hostile model of a format, its hash right, as it comes by mail: nobody signed it."""

    def make(scene: Scene) -> list[str]:
        name = artifact(scene, format)[0]
        data = change((scene.bundle.path / name).read_bytes(), scene)
        bundle = hostile_bundle(scene, {name: data}, only=format)
        return ["verify", str(bundle), "--runtime", ENGINE_OF[format]]

    return make


def _onnx(name: str, attacks: str, make: Callable[[], Draft]) -> tuple[Case, Case]:
    """The same model as a source and as an artifact."""
    source = _source(lambda scene: make()(_image(scene)))
    bundled = _bundled(Format.ONNX, lambda old, scene: make()(_image(scene)))
    return Case(f"onnx source: {name}", attacks, source, 90), Case(f"onnx artifact: {name}", attacks, bundled, 90)


def _ir(name: str, attacks: str, change: Callable[[bytes, Scene], bytes], *, harmless: bool = False) -> Case:
    return Case(f"xml {name}", attacks, _bundled(Format.OPENVINO, change), 90, harmless)


def _tflite(name: str, attacks: str, change: Callable[[bytes], bytes]) -> Case:
    return Case(f"tflite {name}", attacks, _bundled(Format.TFLITE, lambda old, scene: change(old)), 90)


def _doctype(data: bytes, declarations: bytes) -> bytes:
    """The IR with a document type, whose entity x stands in the name of the network."""
    head = b"<?xml version='1.0'?><!DOCTYPE net [" + declarations + b"]>"
    body = re.sub(rb"^<\?xml[^>]*>", b"", data)
    return head + re.sub(rb'<net name="[^"]*"', b'<net name="&x;"', body, count=1)


def _laughs(data: bytes, scene: Scene) -> bytes:
    names = [b"x", *(b"l%d" % i for i in range(30))]
    pairs = pairwise(names)
    return _doctype(data, b"".join(b'<!ENTITY %s "&%s;&%s;">' % (a, b, b) for a, b in pairs) + b'<!ENTITY l29 "ha">')


def _entity(data: bytes, scene: Scene) -> bytes:
    return _doctype(data, b'<!ENTITY x SYSTEM "file://' + os.fsencode(scene.secret) + b'">')


def _large_input(data: bytes, scene: Scene) -> bytes:
    size = scene.bundle.preprocess
    edges = rb"<dim>(%d|%d)</dim>" % (size.height, size.width)
    shape = b'shape="1,%d,60000,60000"' % size.channels
    return re.sub(rb'shape="1,\d+,\d+,\d+"', shape, re.sub(edges, b"<dim>60000</dim>", data), count=1)


def _far_constants(data: bytes, scene: Scene) -> bytes:
    return re.sub(rb'offset="\d+"', b'offset="%d"' % 2**62, data)


def _large_constants(data: bytes, scene: Scene) -> bytes:
    return re.sub(rb'size="\d+"', b'size="%d"' % 2**40, data)


def _shapes(data: bytes) -> bytes:
    """Every shape of an image [1, H, W, C] with 30000 as H and W."""
    large = struct.pack("<3i", 1, 30_000, 30_000)
    for at in range(4, len(data) - 16, 4):
        length, batch, height, width, channels = struct.unpack_from("<5i", data, at - 4)
        if (length, batch) == (4, 1) and all(4 <= n <= 4096 for n in (height, width)) and 1 <= channels <= 512:
            data = data[:at] + large + data[at + 12 :]
    return data


def _everywhere(number: int, kind: str) -> Callable[[bytes], bytes]:
    """The same number in all fields of a kind."""

    def change(data: bytes) -> bytes:
        out = bytearray(data)
        for at in getattr(places(data), kind)[1:]:
            out[at : at + 4] = struct.pack("<I", number)
        return bytes(out)

    return change


CASES = (
    *_onnx("a constant of 2^40 numbers", "memory", lambda: _filled(2**20, 2**20)),
    *_onnx("a constant of 2^80 numbers", "overflow", lambda: _filled(2**40, 2**40)),
    *_onnx("2^21 pictures while it runs", "memory", lambda: _expanded(2**21)),
    *_onnx("a loop without end", "hang", _loop),
    *_onnx("20 loops in each other", "hang", lambda: _nested_loops(20)),
    *_onnx("branches in each other", "recursion", lambda: _nested_ifs(16)),
    *_onnx("200 scans in each other", "recursion", lambda: _deep_scan(200)),
    *_onnx("a function that calls itself", "recursion", _recursive_function),
    *_onnx("2^30 nodes in 30 functions", "memory", lambda: _doubling_functions(30)),
    *_onnx("a picture padded by 2^20", "memory", lambda: _padded(2**20)),
    *_onnx(
        "a constant shorter than its shape", "overrun", lambda: _added(tensor("w", (1000, 1, 1, 1), bytes(4)), 1000)
    ),
    *_onnx("a constant of -1 numbers", "overflow", lambda: _added(tensor("w", (-1, 1, 1, 1), bytes(4)))),
    *_onnx("a constant of 2^64 bytes", "overflow", lambda: _added(tensor("w", (2**62, 1, 1, 1), bytes(4)), 2**62)),
    *_onnx("a circle", "hang", lambda: _network([node("Add", ["x", "z"], ["y"]), node("Abs", ["y"], ["z"])])),
    Case(
        "onnx source: weights in ../../secret",
        "escape",
        _source(lambda s: _external(s, os.path.relpath(s.secret, s.folder))),
        90,
    ),
    Case("onnx source: weights in an absolute path", "escape", _source(lambda s: _external(s, s.secret)), 90),
    Case("onnx source: weights behind a link", "escape", lambda s: _linked(s, lambda to, at: at.symlink_to(to)), 90),
    Case(
        "onnx source: weights behind a hard link", "escape", lambda s: _linked(s, lambda to, at: at.hardlink_to(to)), 90
    ),
    Case("onnx source: weights in /dev/zero", "endless", _source(lambda s: _external(s, "/dev/zero")), 90),
    Case(
        "onnx artifact: weights in an absolute path",
        "escape",
        _bundled(Format.ONNX, lambda old, s: _external(s, s.secret)),
        90,
    ),
    _ir("with a billion laughs", "memory", _laughs, harmless=True),
    _ir("with an external entity", "escape", _entity, harmless=True),
    _ir("of 60000x60000", "memory", _large_input),
    _ir("with constants far behind its weights", "overrun", _far_constants),
    _ir("with constants of 2^40 bytes", "overrun", _large_constants),
    _ir("with 100000 elements in each other", "recursion", lambda data, s: b"<net>" * 100_000 + b"</net>" * 100_000),
    _tflite("of 30000x30000", "memory", _shapes),
    _tflite("with vectors of 2^30 numbers", "overrun", _everywhere(2**30, "lengths")),
    _tflite("with offsets of 2^31", "overrun", _everywhere(2**31, "offsets")),
    _tflite("that is only its first bytes", "overrun", lambda data: data[:64]),
)
