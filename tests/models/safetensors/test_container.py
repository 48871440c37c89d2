"""The file format: what another reader and writer of it says, exact bytes, and files that lie."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.safetensors.container import Container


def file_of(header, data=b"", *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


ARRAYS = {"b.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([1.5, -2], np.float32)}


def test_the_library_reads_what_is_written():
    library = pytest.importorskip("safetensors.numpy")
    found = library.load(Container.of(ARRAYS, {"format": "pt"}).to_bytes())
    assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in ARRAYS.items()}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_the_library_writes_is_read(dtype):
    library = pytest.importorskip("safetensors.numpy")
    arrays = {**{name: array.astype(dtype) for name, array in ARRAYS.items()}, "n": np.arange(3)}
    content = library.save(arrays, metadata={"who": "somebody"})
    container = Container(content)
    assert container.metadata == {"who": "somebody"}
    assert set(container.entries) == set(arrays)
    for name in ARRAYS:
        assert container.array(name).dtype == dtype
        assert np.array_equal(container.array(name), arrays[name])
    assert container.to_bytes() == content
    with pytest.raises(UnsupportedModelError, match="tensor 'n' to be one of F16, F32, F64, BF16, got 'I64'"):
        container.array("n")


def test_bfloat16_is_torchs():
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32) * np.logspace(-30, 30, 1000).astype("f4")
    values[:5] = 0.0, -0.0, np.inf, -np.inf, np.nan
    expected = torch.from_numpy(values).to(torch.bfloat16)
    data = expected.view(torch.int16).numpy().tobytes()
    container = Container(file_of({"x": entry("BF16", (1000,), (0, 2000))}, data))
    assert np.array_equal(container.array("x"), expected.float().numpy(), equal_nan=True)
    blank = Container(file_of({"x": entry("BF16", (1000,), (0, 2000))}, bytes(2000)))
    assert np.array_equal(blank.replaced({"x": values}).array("x"), expected.float().numpy(), equal_nan=True)
    with pytest.raises(UnsupportedModelError, match="numbers that fit bfloat16"):
        blank.replaced({"x": np.full(1000, 3.4e38, np.float32)})


def test_replaced_keeps_the_header_and_all_other_bytes():
    # Unusual spacing, an order of its own, and a dtype that nobody here computes with.
    header = (
        b'{ "z":{"shape":[3],"dtype":"F8_E4M3","data_offsets":[8,11]},"x":' + json.dumps(entry()).encode() + b"}   "
    )
    content = file_of(header, np.array([1, 2], "<f4").tobytes() + b"abc")
    before = Container(content)
    after = before.replaced({"x": np.array([1, 5], np.float32)})
    assert after.to_bytes() == content[:-7] + np.array([5], "<f4").tobytes() + b"abc"
    assert before.to_bytes() == content
    assert after.array("x").tolist() == [1, 5]


def test_tensors_without_elements():
    container = Container(file_of({"e": entry(shape=(0, 4), offsets=(8, 8)), "x": entry()}, bytes(8)))
    assert container.array("e").shape == (0, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "8 bytes with the length"),
        (b"\x02\0\0\0", "8 bytes with the length"),
        (file_of({}, length=2**63), "a header of at most 2 bytes, got 'a length of 9223372036854775808'"),
        (file_of({"x": entry()}, bytes(8), length=10**6), "a header of at most"),
        (file_of(b" " * (9 << 20)), "a header of at most 8388608 bytes"),
        (file_of(b"\xff\xfe"), "a header of JSON"),
        (file_of(b"{"), "a header of JSON"),
        (file_of(b"[" * 100_000), "a header of JSON"),
        (file_of([]), "a header that is a JSON object, got 'list'"),
        (file_of(b'{"x":1,"x":2}'), "a key that stands there twice"),
        (file_of({"__metadata__": {"a": 1}}), "__metadata__ to map texts to texts"),
        (file_of({"__metadata__": 3}), "__metadata__ to map texts to texts"),
        (file_of({"x": 3}), "tensor 'x' to have dtype, shape and data_offsets"),
        (file_of({"x": {**entry(), "more": 1}}, bytes(8)), "tensor 'x' to have dtype"),
        (file_of({"x": entry("F31")}, bytes(8)), "a dtype of the format, got 'F31'"),
        (file_of({"x": entry(["F32"])}, bytes(8)), "a dtype of the format"),
        (file_of({"x": entry(shape=(-2,))}, bytes(8)), "a shape of whole numbers"),
        (file_of({"x": entry(shape=(2.0,))}, bytes(8)), "a shape of whole numbers"),
        (file_of({"x": entry(shape=(True, 2))}, bytes(8)), "a shape of whole numbers"),
        (file_of({"x": entry(shape=[1] * 65)}, bytes(8)), "a shape of whole numbers"),
        (file_of({"x": entry(shape=[2**47] * 60)}, bytes(8)), "as many bytes as"),
        (file_of({"x": entry(shape=(3,))}, bytes(8)), "as many bytes as"),
        (file_of({"x": entry("F4", (3,), (0, 2))}, bytes(2)), "as many bytes as"),
        (file_of({"x": entry(offsets=(8, 0))}, bytes(8)), "as many bytes as"),
        (file_of({"x": entry(offsets=(0, 4, 8))}, bytes(8)), "two data_offsets"),
        (file_of({"x": entry(offsets=(-8, 0))}, bytes(8)), "two data_offsets"),
        (file_of({"x": entry()}, bytes(4)), "8 bytes of tensors behind the header, got 4"),
        (file_of({"x": entry()}, bytes(12)), "8 bytes of tensors behind the header, got 12"),
        (file_of({"x": entry(offsets=(4, 12))}, bytes(12)), "tensor 'x' to begin at byte 0"),
        (file_of({"x": entry(), "y": entry(offsets=(4, 12))}, bytes(12)), "tensor 'y' to begin at byte 8"),
        (file_of({"x": entry(), "y": entry()}, bytes(8)), "tensor 'y' to begin at byte 8"),
    ],
)
def test_files_that_lie_are_refused(content, message):
    with pytest.raises(UnsupportedModelError, match=message):
        Container(content)


def test_a_lie_costs_no_memory():
    content = file_of({"x": entry(shape=(2**40,), offsets=(0, 2**42))}, bytes(8))
    tracemalloc.start()
    with pytest.raises(UnsupportedModelError):
        Container(content)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused(data):
    """Any bytes changed, cut off or added: an error of ours, or tensors of the sizes that they claim."""
    content = bytearray(Container.of(ARRAYS, {"format": "pt"}).to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["change", "cut", "add"])):
            case "change":
                content[place] = data.draw(st.integers(0, 255))
            case "cut":
                del content[place : place + data.draw(st.integers(1, 9))]
                content += b"\0" * (not content)
            case "add":
                content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
    try:
        container = Container(bytes(content))
        for name, entry in container.entries.items():
            assert container.array(name).shape == entry.shape
    except UnsupportedModelError:
        pass
