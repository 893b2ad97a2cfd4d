"""Checkpoint files: what goes in comes out, what is broken is said, an old file survives."""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaop import safetensors
from metaop.errors import CheckpointError
from metaop.safetensors import BFloat16, Tensor, load_tree, read, save_tree, write

DTYPES = ["b1", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]
SHAPES: list[tuple[int, ...]] = [(), (0,), (3, 0, 2), (1,), (7,), (2, 3, 5)]


def sample(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, math.prod(shape)) - 128 * (dtype[0] in "if")
    return np.asarray(values % 2 if dtype == "b1" else values).astype(dtype).reshape(shape)


def same(left, right) -> bool:
    """Equal in type, dtype, shape and bits, all through two trees."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        alike = left.dtype == right.dtype and left.shape == right.shape
        return alike and left.tobytes() == right.tobytes()
    return left == right or (left != left and right != right)


def file_of(header, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="U8", shape=(1,), offsets=(0, 1)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


# --- round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_comes_back(tmp_path, dtype, shape):
    array = sample(dtype, shape)
    save_tree(tmp_path / "x", {"a": array})
    back = load_tree(tmp_path / "x")
    assert same(back, {"a": array})
    assert back["a"].flags.writeable and back["a"].flags.aligned


def test_special_floats_keep_their_bits(tmp_path):
    bits = np.array([0x7FC12345, 0xFF800000, 0x80000000, 1], np.uint32)
    save_tree(tmp_path / "x", bits.view(np.float32))
    assert load_tree(tmp_path / "x").view(np.uint32).tolist() == bits.tolist()


def test_arrays_of_any_layout_come_back(tmp_path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    tree = [base.T, base[::2, ::-3], base[1:, 2], np.broadcast_to(base[0], (3, 6))]
    save_tree(tmp_path / "x", tree)
    assert same(load_tree(tmp_path / "x"), [np.ascontiguousarray(array) for array in tree])
    save_tree(tmp_path / "x", base.astype(">f4"))
    assert same(load_tree(tmp_path / "x"), base)


def test_a_tree_of_everything_comes_back(tmp_path):
    array = np.arange(3)
    tree = {
        "model": {"0.weight": array, "0.bias": np.float32(2) * array},
        "optimizer": {"state": {0: {"step": 3}, 1: {}}, "groups": [{"lr": 0.1, "nesterov": False}]},
        "shape": (1, (2, array), []),
        "text": "grün \u2603 \x00 \"'\\",
        "numbers": [-(2**70), 1e-320, -0.0, math.inf, -math.inf, math.nan, True, None],
        "": {"": array},
    }
    save_tree(tmp_path / "x", tree)
    back = load_tree(tmp_path / "x")
    assert same(back, tree)
    assert math.copysign(1, back["numbers"][2]) == -1


def test_numpy_scalars_come_back_as_arrays(tmp_path):
    save_tree(tmp_path / "x", [np.float64(0.5), np.int8(-3), np.bool_(True)])
    assert same(load_tree(tmp_path / "x"), [np.array(0.5), np.array(-3, np.int8), np.array(True)])


def test_a_tree_that_is_one_leaf_comes_back(tmp_path):
    for leaf in (np.arange(3), 5, "text", None, {}, [], ()):
        save_tree(tmp_path / "x", leaf)
        assert same(load_tree(tmp_path / "x"), leaf)


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    | st.builds(sample, st.sampled_from(DTYPES), st.sampled_from(SHAPES))
)
keys = st.integers(-3, 3) | st.sampled_from(["", "a", "a.b", "b", "0", "__metadata__", "tensor"])
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(tree=trees)
@settings(deadline=None, max_examples=80)
def test_any_tree_comes_back(tree):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_tree(path, tree)
        assert same(load_tree(path), tree)


def test_tensors_have_dotted_names_for_other_readers(tmp_path):
    tree = {"model": {"0": {"weight": np.zeros(2)}}, "list": [1, np.ones(1)]}
    save_tree(tmp_path / "x", tree)
    tensors, metadata = read(tmp_path / "x")
    assert list(tensors) == ["model.0.weight", "list.1"]
    assert list(metadata) == ["metaop"]


def test_names_that_collide_are_told_apart(tmp_path):
    tree = {"a": {"b": np.array(1)}, "a.b": np.array(2), "__metadata__": np.array(3)}
    save_tree(tmp_path / "x", tree)
    assert same(load_tree(tmp_path / "x"), tree)
    assert list(read(tmp_path / "x")[0]) == ["a.b", "a.b~", "__metadata__~"]


def test_a_file_without_our_structure_is_a_flat_dict(tmp_path):
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    write(tmp_path / "x", {"a.b": Tensor("I16", (2, 3), array.tobytes())}, {"format": "pt"})
    assert same(load_tree(tmp_path / "x"), {"a.b": array})
    assert read(tmp_path / "x")[1] == {"format": "pt"}


def test_bfloat16_travels_as_its_bits(tmp_path):
    bits = np.array([[0x3F80, 0x7FC0]], np.uint16)
    save_tree(tmp_path / "x", {"w": BFloat16(bits), "n": bits})
    assert read(tmp_path / "x")[0]["w"].dtype == "BF16"
    back = load_tree(tmp_path / "x")
    assert isinstance(back["w"], BFloat16) and same(back["w"].bits, bits)
    assert same(back["n"], bits)
    with pytest.raises(TypeError, match="bits of 'tensor' must be uint16, are float32"):
        save_tree(tmp_path / "x", BFloat16(np.zeros(1, np.float32)))


def test_callbacks_turn_other_leaves_into_arrays_and_back(tmp_path):
    class Box:
        def __init__(self, array, dtype="?"):
            self.array, self.dtype = array, dtype

    save_tree(tmp_path / "x", [Box(np.arange(2)), np.zeros(1)], to_array=lambda box: box.array)
    first, second = load_tree(tmp_path / "x", from_array=Box)
    assert first.array.tolist() == [0, 1] and first.dtype == "I64" and second.dtype == "F64"


def test_tensors_are_aligned_in_the_file(tmp_path):
    save_tree(tmp_path / "x", [sample(dtype, (3,)) for dtype in DTYPES])
    content = (tmp_path / "x").read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    assert begin % 8 == 0
    header = json.loads(content[8:begin])
    for name, value in header.items():
        if name != "__metadata__":
            size = (value["data_offsets"][1] - value["data_offsets"][0]) // 3
            assert value["data_offsets"][0] % size == 0


# --- what cannot be stored --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": [1, object()]}, r"a object at 'a\.1' cannot be stored"),
        ({"a": {"b": {1.5: 2}}}, r"the key 1\.5 at 'a\.b' is neither str nor int"),
        ({True: 2}, "the key True"),
        ([np.zeros(1, complex)], "'0' has dtype complex128"),
        ([np.array(["text"])], "'0' has dtype <U4"),
        ([np.array([None])], "'0' has dtype object"),
        ([b"bytes"], "a bytes at '0'"),
    ],
)
def test_what_cannot_be_stored_is_a_type_error_that_names_the_place(tmp_path, tree, message):
    with pytest.raises(TypeError, match=message):
        save_tree(tmp_path / "x", tree)
    assert not list(tmp_path.iterdir())


def test_a_tree_that_holds_itself_is_refused(tmp_path):
    tree: list = []
    tree.append(tree)
    with pytest.raises(ValueError, match="does the tree hold itself"):
        save_tree(tmp_path / "x", tree)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": Tensor("F31", (1,), b"1234")}, "'a': unknown dtype 'F31'"),
        ({"a": Tensor("F32", (2,), b"1234")}, r"F32\[2\] is 8 bytes, got 4"),
        ({"__metadata__": Tensor("U8", (1,), b"1")}, "under the name '__metadata__'"),
        ({"\ud800": Tensor("U8", (1,), b"1")}, "surrogates not allowed"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused(tmp_path, tensors, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "x", tensors)
    assert not list(tmp_path.iterdir())


# --- broken files -----------------------------------------------------------------------------

DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

BROKEN = {
    "empty": (b"", "0 bytes are too few"),
    "short": (b"1234567", "7 bytes are too few"),
    "long header": (b"\xff" * 8 + b"{}", "header claims 18446744073709551615 bytes, at most 2"),
    "header past the end": (file_of({})[:-1], "header claims 2 bytes, at most 1"),
    "no json": (file_of(b"{'a': 1}"), "not valid JSON"),
    "no utf-8": (file_of(b'{"\xff": 1}'), "not valid JSON"),
    "no object": (file_of([]), "not a JSON object"),
    "nan": (file_of(b'{"a": NaN}'), "NaN is not JSON"),
    "deep": (file_of(DEEP), "not valid JSON"),
    "twice": (file_of(b'{"a": 1, "a": 2}'), "a name occurs twice"),
    "metadata": (file_of({"__metadata__": {"a": 1}}), "not a map of strings to strings"),
    "no entry": (file_of({"a": 5}), "'a' must have dtype, shape and data_offsets"),
    "missing key": (file_of({"a": {"dtype": "U8"}}), "'a' must have dtype"),
    "dtype": (file_of({"a": entry("F128", (1,), (0, 16))}, bytes(16)), "unknown dtype 'F128'"),
    "dtype list": (file_of({"a": entry(["U8"])}, b"1"), "unknown dtype"),
    "negative": (file_of({"a": entry(shape=(-1, -1))}, b"1"), "not a list of sizes"),
    "float size": (file_of({"a": entry(shape=(1.0,))}, b"1"), "not a list of sizes"),
    "bool size": (file_of({"a": entry(shape=(True,))}, b"1"), "not a list of sizes"),
    "offsets": (file_of({"a": entry(offsets=(0, 1, 2))}, b"1"), r"not \[begin, end\]"),
    "backwards": (file_of({"a": entry(offsets=(1, 0))}, b"1"), r"not \[begin, end\]"),
    "size": (file_of({"a": entry("F32", (2,), (0, 7))}, bytes(7)), r"F32\[2\] is 8 bytes, not 7"),
    "truncated": (file_of({"a": entry("U8", (9,), (0, 9))}, bytes(8)), "ends at byte 9 of 8"),
    "overlap": (
        file_of({"a": entry("U8", (2,), (0, 2)), "b": entry("U8", (2,), (1, 3))}, bytes(3)),
        "'b' overlaps another",
    ),
    "hole": (file_of({"a": entry("F32", (1,), (1, 5))}, bytes(5)), "'a' leaves a hole before it"),
    "rest": (file_of({"a": entry()}, b"12"), "1 bytes after the last tensor"),
    "bool value": (file_of({"a": entry("BOOL")}, b"\2"), "neither 0 nor 1"),
    "size of zero": (file_of({"a": entry("F32", (0, 2**62, 9), (0, 0))}), "is not possible"),
    "rank": (file_of({"a": entry("U8", (1,) * 99)}, b"1"), "is not possible"),
    "size past 64 bits": (file_of({"a": entry("U8", (0, 2**64), (0, 0))}), "is not possible"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_a_checkpoint_error_that_names_it(tmp_path, name):
    content, message = BROKEN[name]
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"broken\.safetensors: .*{message}"):
        load_tree(path)


def with_structure(structure, data=b"\1") -> bytes:
    text = structure if isinstance(structure, str) else json.dumps(structure)
    return file_of({"__metadata__": {"metaop": text}, "t": entry()}, data)


STRUCTURES = {
    "no json": ("{", "structure is not valid JSON"),
    "no object": ([1], "must have format and tree"),
    "newer": ({"format": 2, "tree": None}, "structure format 2, this metaop reads 1"),
    "unknown": ({"format": 1, "tree": {"code": "print()"}}, "unknown part {'code'"),
    "bare list": ({"format": 1, "tree": [1]}, "unknown part"),
    "float": ({"format": 1, "tree": {"float": "1.5"}}, "unknown part"),
    "pair": ({"format": 1, "tree": {"dict": [["a"]]}}, "unknown part"),
    "key": ({"format": 1, "tree": {"dict": [[True, 1]]}}, "unknown part"),
    "key twice": ({"format": 1, "tree": {"dict": [["a", 1], ["a", 2]]}}, "key 'a' twice"),
    "absent": ({"format": 1, "tree": {"tensor": "u"}}, "asks for tensor 'u', not there"),
    "used twice": (
        {"format": 1, "tree": {"list": [{"tensor": "t"}, {"tensor": "t"}]}},
        "asks for tensor 't'",
    ),
    "left over": ({"format": 1, "tree": None}, r"does not mention \['t'\]"),
    "deep": (
        '{"format":1,"tree":' + '{"list":[' * 200 + "]}" * 200 + "}",
        "nested deeper than 100",
    ),
    "very deep": (
        '{"format":1,"tree":' + '{"list":[' * 100_000 + "]}" * 100_000 + "}",
        "not valid JSON|nested deeper",
    ),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_broken_structure_is_a_checkpoint_error(tmp_path, name):
    structure, message = STRUCTURES[name]
    path = tmp_path / "broken.safetensors"
    path.write_bytes(with_structure(structure))
    with pytest.raises(CheckpointError, match=rf"broken\.safetensors: .*({message})"):
        load_tree(path)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_tree(tmp_path / "missing")


def test_a_tensor_at_an_odd_place_is_read(tmp_path):
    """The format asks for no alignment, so other writers leave none."""
    header = {"a": entry("U8", (3,), (0, 3)), "b": entry("F32", (1,), (3, 7))}
    data = b"abc" + np.float32(1.5).tobytes()
    (tmp_path / "x").write_bytes(file_of(header, data))
    assert load_tree(tmp_path / "x")["b"].tolist() == [1.5]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    tree = {"a": [sample(dtype, (2, 3)) for dtype in DTYPES], "b": {"c": 1.5, 2: (None, "x")}}
    save_tree(path, tree)
    return path


@given(data=st.data())
@settings(deadline=None, max_examples=300)
def test_changed_bytes_never_crash_anything(good, data):
    content = bytearray(good.read_bytes())
    header_end = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        limit = data.draw(st.sampled_from([8, header_end, len(content)]))
        content[data.draw(st.integers(0, limit - 1))] = data.draw(st.integers(0, 255))
    path = good.with_name("changed.safetensors")
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    try:
        load_tree(path)
    except CheckpointError as error:
        assert str(error).startswith(str(path))


# --- atomicity --------------------------------------------------------------------------------


def failing(*arguments, **keywords):
    raise OSError(errno.ENOSPC, "no space left on device")


@pytest.mark.parametrize("what", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, what):
    path = tmp_path / "x"
    save_tree(path, {"a": np.arange(3)})
    old = path.read_bytes()
    monkeypatch.setattr(safetensors.os, what, failing)
    with pytest.raises(OSError, match="no space left"):
        save_tree(path, {"a": np.arange(4)})
    monkeypatch.undo()
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_stops_half_way_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "x"
    save_tree(path, {"a": np.arange(3)})
    old = path.read_bytes()
    plain_open = open

    def broken_open(name, mode):
        file = plain_open(name, mode)
        plain_write, left = file.write, [1]

        class Broken:
            def write(self, data):
                if not left:
                    raise error
                left.pop()
                return plain_write(data)

            def __enter__(self):
                return self

            def __exit__(self, *details):
                file.close()

        return Broken()

    monkeypatch.setattr(safetensors, "open", broken_open, raising=False)
    with pytest.raises(type(error)):
        save_tree(path, {"a": np.arange(4)})
    monkeypatch.undo()
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="needs links and modes")
def test_a_link_and_the_mode_of_an_old_file_are_kept(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    save_tree(target, 1)
    target.chmod(0o640)
    link.symlink_to(target)
    save_tree(link, 2)
    assert link.is_symlink() and load_tree(target) == 2
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name != "posix", reason="needs modes")
def test_a_new_file_has_the_usual_mode(tmp_path):
    save_tree(tmp_path / "x", 1)
    (tmp_path / "y").write_bytes(b"")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


# --- the reference implementation -------------------------------------------------------------


def test_the_safetensors_package_reads_our_files_and_we_read_its(tmp_path):
    theirs = pytest.importorskip("safetensors.numpy")
    arrays = {f"{dtype}.{i}": sample(dtype, SHAPES[i]) for dtype in DTYPES for i in range(6)}
    save_tree(tmp_path / "ours", arrays)
    found = theirs.load_file(tmp_path / "ours")
    assert set(found) == set(arrays) and all(same(found[name], arrays[name]) for name in arrays)
    theirs.save_file(arrays, tmp_path / "theirs", {"format": "np"})
    back = load_tree(tmp_path / "theirs")
    assert set(back) == set(arrays) and all(same(back[name], arrays[name]) for name in arrays)


def test_the_safetensors_package_refuses_what_we_refuse():
    theirs = pytest.importorskip("safetensors.numpy")
    accepted = []
    for name, (content, _) in BROKEN.items():
        try:
            theirs.load(content)
            accepted.append(name)
        except Exception:  # of whatever kind
            pass
    assert accepted == ["bool value"]  # it takes any byte for a truth value
