"""Files that mean harm, or have come to it: refused in one line, and nothing of them is run."""

import argparse
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foreign import assert_bits, prefixed, tiny_model, tiny_state
from forged import forge, to_pickle, write_legacy, write_safetensors, write_zip
from pyramidvit import load_weights, read_checkpoint, save_checkpoint
from pyramidvit.errors import UserError
from pyramidvit.weights.checkpoint import state_dicts
from pyramidvit.weights.describe import describe_checkpoint

FUZZER = Path(__file__).parent / "fuzz_checkpoints.py"
BOTH = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "old"])


def refuse(path: Path, message: str) -> None:
    """Reading must fail with one line, names the file, and takes no memory to speak of."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=message) as error:
        read_and_load(path)
    text = str(error.value)
    assert path.name in text
    assert "\n" not in text
    assert len(text) < 500
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000  # kB


def read_and_load(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    describe_checkpoint(checkpoint, str(path))
    load_weights(tiny_model(), path)


# Pickles that ask for something.


class Asks:
    """A pickle of this calls `function(*arguments)` in whoever reads it without a fence."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def hostile(target: Path) -> dict[str, tuple[Any, str]]:
    """Objects whose reading would leave a file behind, and the name that each asks for."""
    touch = f"open({str(target)!r}, 'w').close()"
    return {
        "system": (Asks(os.system, f"echo > '{target}'"), r"posix\.system"),
        "eval": (Asks(eval, touch), r"builtins\.eval"),
        "exec": (Asks(exec, touch), r"builtins\.exec"),
        "open": (Asks(open, str(target), "w"), r"(_io|io|builtins)\.open"),
        "popen": (Asks(subprocess.Popen, ["touch", str(target)]), r"subprocess\.Popen"),
        "import": (Asks(__import__, "antigravity"), r"builtins\.__import__"),
        "hub": (Asks(torch.hub.load, "o/r", "m"), r"torch\.hub\.load"),
        "load": (Asks(torch.load, "x"), r"torch\.serialization\.load"),
        "in an array": (
            np.array([Asks(os.system, f"echo > '{target}'")], dtype=object),
            r"posix\.system",
        ),
        "path": (Path("x"), r"pathlib\."),
        "module": (torch.nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"),
    }


@pytest.mark.parametrize("where", ["zip", "old", "bare", "protocol 4", "cut"])
@pytest.mark.parametrize("what", hostile(Path()))
def test_a_pickle_that_asks_for_code_is_refused_with_its_name_and_runs_nothing(
    what: str, where: str, tmp_path: Path
) -> None:
    target, path = tmp_path / "canary", tmp_path / "model.pth"
    thing, name = hostile(target)[what]
    content = {"model": tiny_state(), "extra": thing}
    if where == "bare":  # pickle.dump, without torch
        path.write_bytes(pickle.dumps({"extra": thing}, 2))
    elif where == "cut":
        path.write_bytes(pickle.dumps({"extra": thing}, 2)[:-1])
    else:
        torch.save(
            content,
            path,
            _use_new_zipfile_serialization=where != "old",
            pickle_protocol=4 if where == "protocol 4" else 2,
        )
    modules = set(sys.modules)
    refuse(path, rf"was refused: it asks for .*{name}.*; weights are loaded without running code")
    assert not target.exists()
    assert "antigravity" not in set(sys.modules) - modules


@BOTH
@pytest.mark.parametrize(
    ("code", "name"),
    [
        (b"cos\nsystem\nX\x04\x00\x00\x00true\x85R", r"os\.system"),
        (b"c__builtin__\neval\nX\x01\x00\x00\x001\x85R", r"builtins\.eval"),  # Python 2's
        (b"c__builtin__\ngetattr\ncos\nsystem\nX\x01\x00\x00\x00x\x86R", r"os\.system"),
        (b"cbuiltins\ngetattr\nctorch\nload\nX\x01\x00\x00\x00x\x86R", r"torch\.load"),
        (b"(ios\nsystem\n", r"os\.system"),  # INST
        (b"(X\x04\x00\x00\x00trueios\nsystem\n", r"os\.system"),
        (b"\x8c\x05posix\x94\x8c\x06system\x94\x93", r"posix\.system"),  # STACK_GLOBAL
        (b"\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93", r"posix\.system"),  # by memo
        (b"\x82\x01", "the extension 1"),  # EXT1
        (b"cnumpy.core.multiarray\n_reconstruct\ncos\nsystem\n\x85R", r"os\.system"),
        (b"ctorch\nserialization.load\n", r"torch\.serialization\.load"),
        (b"ctorch.storage\n_load_from_bytes\nC\x01x\x85R", r"torch\.storage\._load_from_bytes"),
    ],
    ids=str,
)
def test_every_way_of_asking_is_seen(code: bytes, name: str, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    data = b"\x80\x02" + code + b"."
    write_legacy(path, data, {}) if legacy else write_zip(path, data, {})
    refuse(path, rf"was refused: it asks for .*{name}")


def test_getattr_alone_gives_an_empty_shell(tmp_path: Path) -> None:
    """mmengine's averages ask for it (their methods); it is never called."""
    path = tmp_path / "model.pth"
    state = to_pickle({"model": {"x": "y"}})
    assert state.endswith(b"s.")
    forge(path, tiny_state(), {})
    with zipfile.ZipFile(path) as archive:
        stored = {
            name.rpartition("/")[2]: archive.read(name)
            for name in archive.namelist()
            if "/data/" in name
        }
        data = archive.read("archive/data.pkl")
    asks = (
        b"X\x01\x00\x00\x00xc__builtin__\ngetattr\nX\x00\x00\x00\x00X\x05\x00\x00\x00upper\x86Rs."
    )
    assert data.endswith(b".")
    write_zip(path, data[:-1] + asks, stored)
    assert_bits(read_checkpoint(path).state, tiny_state())


def test_a_harmless_file_of_protocol_4_is_refused_for_that(tmp_path: Path) -> None:
    torch.save(tiny_state(), tmp_path / "model.pth", pickle_protocol=4)
    refuse(tmp_path / "model.pth", "was refused: it asks for pickle protocol 4")


@BOTH
def test_arguments_numbers_and_arrays_beside_the_weights_are_inert(
    legacy: bool, tmp_path: Path
) -> None:
    content = {
        "model": tiny_state(),
        "args": argparse.Namespace(lr=np.float64(0.1), model="pvt_v2", sizes=[np.int64(3)]),
        "best": np.float32(0.5),
        "array": np.arange(6.0).reshape(2, 3),
        "flags": np.array([True]),
        "strange": np.array([{"a": 1}, None], dtype=object),
        "words": {"a", "b"},
        "raw": b"bytes",
    }
    path = tmp_path / "model.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    checkpoint = read_checkpoint(path)
    assert_bits(checkpoint.state, tiny_state())
    assert checkpoint.facts == {"model": "pvt_v2"}
    load_weights(tiny_model(), path)


def test_scripted_models_are_refused(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "scripted.pt")
    refuse(tmp_path / "scripted.pt", "was refused: it is a scripted program of torch.jit")


# Archives.


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    write_zip(path, to_pickle({}), {"0": bytes(1000)}, zipfile.ZIP_DEFLATED)
    refuse(path, r"was refused: its entry archive/data\.pkl is compressed")


def test_a_zip_bomb_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    write_zip(path, bytes(300_000_000), {}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 500_000
    refuse(path, "is compressed")


@pytest.mark.parametrize("names", [(), ("a/data.pkl", "b/data.pkl"), ("word/document.xml",)])
def test_other_archives_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, to_pickle({}))
    refuse(path, "is a zip archive, but none that torch.save wrote")


def test_an_archive_whose_two_indices_disagree_runs_nothing(tmp_path: Path) -> None:
    """Two archives in one file: whichever of them torch reads, no foreign name gets through."""
    good, bad, path = tmp_path / "good", tmp_path / "bad", tmp_path / "model.pth"
    target = tmp_path / "canary"
    forge(good, tiny_state(), {})
    write_zip(bad, to_pickle(hostile(target)["system"][0]), {})
    for first, second in ((good, bad), (bad, good)):
        path.write_bytes(first.read_bytes() + second.read_bytes())
        try:
            state = read_checkpoint(path).state
        except UserError:
            state = tiny_state()
        assert_bits(state, tiny_state())
        assert not target.exists()


# Tensors that lie.


@BOTH
def test_a_forged_file_without_a_lie_is_read(legacy: bool, tmp_path: Path) -> None:
    assert_bits(
        read_checkpoint(forge(tmp_path / "m.pth", tiny_state(), {}, legacy=legacy)).state,
        tiny_state(),
    )


BIG = 2**40
LIES: dict[str, dict[str, Any]] = {
    "more numbers than the record": {"numel": 10_000, "size": (10_000,), "stride": (1,)},
    "a terabyte": {"numel": BIG, "size": (BIG,), "stride": (1,)},
    "one number a terabyte long": {"size": (BIG,), "stride": (0,)},
    "one number repeated": {"size": (500_000,), "stride": (0,)},
    "an overflowing product": {"size": (2**32, 2**32), "stride": (0, 0)},
    "an overflowing numel": {"numel": 2**62, "size": (2**62,), "stride": (1,)},
    "beyond 64 bits": {"numel": 2**70, "size": (2**70,), "stride": (1,)},
    "a negative size": {"size": (-1,)},
    "a negative stride": {"stride": (-1,)},
    "a negative offset": {"offset": -5},
    "an offset beyond the end": {"offset": 10_000},
    "a large offset": {"offset": 2**62},
    "a negative numel": {"numel": -4},
    "more sizes than strides": {"size": (2, 2), "stride": (1,)},
    "sizes that are words": {"size": ("a",)},
    "overlapping giants": {"size": (3000, 3000), "stride": (0, 0)},
    "sixty-five dimensions": {"size": (1,) * 65, "stride": (1,) * 65},
}


@BOTH
@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_lies_about_its_size_is_refused(
    lie: str, legacy: bool, tmp_path: Path
) -> None:
    state = tiny_state()
    path = forge(tmp_path / "model.pth", state, {"norm2.bias": LIES[lie]}, legacy=legacy)
    refuse(path, r"norm2\.bias|not a readable checkpoint")


def test_a_file_whose_storages_are_not_in_it_is_not_believed(tmp_path: Path) -> None:
    """The older format lists its storages at the end; one that it leaves out stays unfilled, and
    must not show what lay in memory before."""
    path = tmp_path / "model.pth"
    forge(path, tiny_state(), {}, legacy=True)
    honest = path.read_bytes()
    listed = pickle.dumps([str(k) for k in range(len(tiny_state()))], 2)
    assert listed in honest
    path.write_bytes(honest.replace(listed, pickle.dumps([], 2)))
    assert all(value.isnan().all() for value in read_checkpoint(path).state.values())
    refuse(path, "holds numbers that are not finite")


def test_dicts_that_hold_each_other_are_walked_once() -> None:
    loop: dict[str, Any] = {"x": torch.zeros(1)}
    loop |= {f"again{k}": loop for k in range(20)}
    assert len(list(state_dicts(loop))) == 1


def test_a_deeply_nested_pickle_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    depth = 200_000
    write_zip(path, b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".", {})
    refuse(path, "model.pth")


# Safetensors.


def header_of(tensors: dict[str, tuple[str, list[int], list[int]]]) -> str:
    return json.dumps(
        {
            name: {"dtype": kind, "shape": shape, "data_offsets": place}
            for name, (kind, shape, place) in tensors.items()
        }
    )


ONE = header_of({"a": ("F32", [2], [0, 8])})


@pytest.mark.parametrize(
    ("header", "data", "size", "message"),
    [
        (ONE, bytes(8), 2**63, "its header claims 9223372036854775808 bytes"),
        (ONE, bytes(8), 100_000_000, "its header claims 100000000 bytes"),
        (ONE, bytes(8), 2**64 - 1, "its header claims"),
        (ONE, bytes(8), 0, "its header claims 0 bytes"),
        (ONE, bytes(8), len(ONE) + 9, "its header claims"),
        (ONE, bytes(8), len(ONE) - 3, "not readable JSON"),
        (ONE, bytes(7), None, "not a readable safetensors file"),
        (ONE, b"", None, "not a readable safetensors file"),
        (ONE, bytes(9), None, "not a readable safetensors file"),
        (header_of({"a": ("F32", [-2], [0, 8])}), bytes(8), None, "not a readable safetensors"),
        (header_of({"a": ("F32", [2], [8, 0])}), bytes(8), None, "not a readable safetensors"),
        (header_of({"a": ("F32", [2], [-8, 0])}), bytes(8), None, "not a readable safetensors"),
        (header_of({"a": ("F32", [2**62, 4], [0, 8])}), bytes(8), None, "not a readable safe"),
        (header_of({"a": ("F32", [3], [0, 8])}), bytes(8), None, "not a readable safetensors"),
        (header_of({"a": ("Q99", [2], [0, 8])}), bytes(8), None, "not a readable safetensors"),
        (
            header_of({"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [4, 12])}),
            bytes(12),
            None,
            "not a readable safetensors",
        ),
        (
            header_of({"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [0, 8])}),
            bytes(8),
            None,
            "not a readable safetensors",
        ),
        (
            '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
            '"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
            bytes(8),
            None,
            "'a' stands there twice",
        ),
        ('{"a":{"dtype":"F32","dtype":"F16"}}', b"", None, "'dtype' stands there twice"),
        ('{"__metadata__":{"x":"1","x":"2"}}', b"", None, "'x' stands there twice"),
        ('{"__metadata__":[]}', b"", None, "__metadata__ is not a JSON object"),
        ('{"__metadata__":{"pyramidvit":"{"}}', b"", None, "its record is not readable JSON"),
        ('{"__metadata__":{"pyramidvit":"[]"}}', b"", None, "its record is not a JSON object"),
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", b"", None, "not readable JSON"),
        ('{"a":' + '{"a":' * 5000 + "1" + "}" * 5001, b"", None, "not readable JSON|not a reada"),
        ("[]", b"", None, "the header is not a JSON object"),
        ("17", b"", None, "the header is not a JSON object"),
        ('"text"', b"", None, "the header is not a JSON object"),
        ("{}", b"", None, "holds no PVT: it is empty"),
        (b'{"\xff\xfe":1}', b"", None, "not readable JSON"),
        ('{"a":' + "9" * 10_000 + "}", b"", None, "not readable JSON"),
        ('{"a":null}', b"", None, "not a readable safetensors"),
        (header_of({"a": ("F8_E4M3", [2], [0, 2])}), bytes(2), None, "torch.float8_e4m3fn numbe"),
        (header_of({"a": ("F8_E5M2", [2], [0, 2])}), bytes(2), None, "torch.float8_e5m2 number"),
        (header_of({"a": ("C64", [1], [0, 8])}), bytes(8), None, "complex64|not a readable"),
    ],
    ids=range(35),
)
def test_a_broken_or_hostile_safetensors_file_is_refused(
    header: str | bytes, data: bytes, size: int | None, message: str, tmp_path: Path
) -> None:
    refuse(write_safetensors(tmp_path / "model.safetensors", header, data, size), message)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
def test_a_safetensors_file_of_a_few_bytes_is_refused(count: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Qc", 2, b"{")[:count])
    refuse(path, "its header claims")


# Numbers that no model computes with.


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_reported_and_refused(
    value: float, suffix: str, tmp_path: Path
) -> None:
    state = tiny_state()
    state["norm2.bias"] = state["norm2.bias"].clone()
    state["norm2.bias"][1] = value
    path = write(tmp_path / f"model{suffix}", state)
    described = describe_checkpoint(read_checkpoint(path), str(path))
    assert described.not_finite == ("norm2.bias",)
    refuse(path, r"norm2\.bias holds numbers that are not finite")


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool], ids=str)
def test_weights_that_are_whole_numbers_are_refused(kind: torch.dtype, tmp_path: Path) -> None:
    state = tiny_state()
    state["norm2.bias"] = state["norm2.bias"].to(kind)
    refuse(write(tmp_path / "model.safetensors", state), rf"norm2\.bias holds {kind} numbers")


def test_weights_too_large_for_the_model_are_refused(tmp_path: Path) -> None:
    state = tiny_state()
    state["norm2.bias"] = torch.full((4,), 1e300, dtype=torch.float64)
    refuse(
        write(tmp_path / "model.safetensors", state),
        r"norm2\.bias holds numbers too large for torch\.float32",
    )


def write(path: Path, state: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_checkpoint(path, state, {})
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_name_that_would_move_the_cursor_is_refused(suffix: str, tmp_path: Path) -> None:
    state = {**tiny_state(), "block1.0.\x1b[2J\nerror": torch.zeros(1)}
    path = write(tmp_path / f"model{suffix}", state)
    refuse(path, r"the name 'block1\.0\.\\x1b\[2J\\nerror' holds characters that cannot be printed")


# Shapes that no code expects: whatever comes out, it is an answer.


@pytest.mark.parametrize("name", list(tiny_state("v1")))
def test_any_tensor_may_have_any_shape(name: str) -> None:
    for shape in ((), (0,), (3,), (1, 1, 1, 1, 1)):
        state = tiny_state("v1") | {name: torch.zeros(shape)}
        with pytest.raises(UserError):
            load_weights(tiny_model("v1"), state, new_head=False)


# Directories.


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A directory as transformers' save_pretrained writes it, in two shards."""
    items = list(tiny_state().items())
    places = {}
    for number, part in ((1, items[:20]), (2, items[20:])):
        name = f"model-0000{number}-of-00002.safetensors"
        save_checkpoint(tmp_path / name, dict(part), {})
        places |= {key: name for key, _ in part}
    write_index(tmp_path, places)
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def write_index(folder: Path, places: Any) -> None:
    content = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def places_of(folder: Path) -> dict[str, Any]:
    places: dict[str, Any] = json.loads((folder / "model.safetensors.index.json").read_text())[
        "weight_map"
    ]
    return places


def test_whole_shards_are_read(shards: Path) -> None:
    assert_bits(read_checkpoint(shards).state, tiny_state())


@pytest.mark.parametrize("place", ["../x.safetensors", "/etc/passwd", "..", "", "a/b", None, 3, {}])
def test_an_index_that_points_elsewhere_is_refused(place: Any, shards: Path) -> None:
    save_checkpoint(shards.parent / "x.safetensors", {"head.bias": torch.zeros(12)}, {})
    write_index(shards, places_of(shards) | {"head.bias": place})
    refuse(shards, r"names '.*', which is no file of|disagree about head\.bias")


def test_a_missing_shard_is_named(shards: Path) -> None:
    (shards / "model-00002-of-00002.safetensors").unlink()
    refuse(shards, r"names 'model-00002-of-00002\.safetensors', which is no file of")


@pytest.mark.parametrize("change", ["more", "fewer"])
def test_a_shard_that_holds_something_else_is_named(change: str, shards: Path) -> None:
    path = shards / "model-00002-of-00002.safetensors"
    state = dict(read_checkpoint(path).state)
    if change == "more":
        state["norm9.bias"] = torch.zeros(1)
    else:
        state.pop("norm4.bias")
    save_checkpoint(path, state, {})
    refuse(shards, r"disagree about norm[49]\.bias")


@pytest.mark.parametrize("places", [None, [], {}, "x"], ids=str)
def test_an_index_without_a_map_is_refused(places: Any, shards: Path) -> None:
    write_index(shards, places)
    refuse(shards, "has no weight_map")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        '{"a":1,"a":2}',
        "\x00",
        "[" * 100_000,
        '{"id2label":' + "9" * 9999,
    ],
    ids=range(9),
)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_a_description_that_is_no_json_is_refused(file: str, text: str, shards: Path) -> None:
    (shards / file).write_text(text)
    refuse(shards, r"not readable JSON|not a JSON object")


@pytest.mark.parametrize(
    "labels", [[], "x", {}, {"0": 1}, {"a": "b"}, {"0": {"name": 3}}, {"1": "b"}], ids=str
)
def test_strange_class_names_in_a_description_are_left_out(labels: Any, shards: Path) -> None:
    (shards / "config.json").write_text(json.dumps({"id2label": labels, "layer_norm_eps": "?"}))
    assert read_checkpoint(shards).classes is None


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    refuse(tmp_path, r"has neither model\.safetensors nor pytorch_model\.bin")
    (tmp_path / "config.json").write_text("{}")
    refuse(tmp_path, r"has neither")
    (tmp_path / "best.safetensors").write_bytes(b"x")
    refuse(tmp_path, r"; take .*best\.safetensors")


# What is no checkpoint at all.


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin", ""])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a"),
        (b"<!DOCTYPE html>\n<html><head>", "but a web page: the download went wrong|header claims"),
        (b"  <html>", "but a web page|header claims"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "pointer to one|header claim",
        ),
        (b"PK", "not a readable checkpoint|header claims"),
        (b"PK\x05\x06" + bytes(18), "was refused|header claims"),
        (b"\x80", "not a readable checkpoint|header claims"),
        (b"\x80\x02}.", "not a readable checkpoint|header claims"),
        (bytes(100), "is not a"),
        (b"\x89HDF\r\n\x1a\n", "is not a checkpoint file|header claims"),
        (b"hello\nworld", "is not a checkpoint file|header claims"),
    ],
    ids=range(11),
)
def test_a_file_of_something_else_is_refused(
    content: bytes, message: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    refuse(path, message)


def test_a_pipe_and_a_device_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    refuse(tmp_path / "pipe.pth", "no such checkpoint")
    refuse(Path("/dev/zero"), "no such checkpoint")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_no_traceback(tmp_path: Path) -> None:
    path = write(tmp_path / "model.pth", tiny_state())
    path.chmod(0)
    with pytest.raises((UserError, PermissionError)):
        read_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_reading_leaves_torchs_own_fence_as_it_was(legacy: bool, tmp_path: Path) -> None:
    before = torch.serialization.get_safe_globals()
    path = tmp_path / "model.pth"
    content = {"model": tiny_state(), "args": argparse.Namespace(a=1)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    read_checkpoint(path)
    assert torch.serialization.get_safe_globals() == before
    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        torch.load(path, weights_only=True)


def test_tensors_are_their_own_after_reading(tmp_path: Path) -> None:
    """Not windows on the file, which may change or go."""
    path = write(tmp_path / "model.pth", prefixed(tiny_state(), "module."))
    state = read_checkpoint(path).state
    path.write_bytes(bytes(path.stat().st_size))
    assert_bits(state, prefixed(tiny_state(), "module."))


def test_a_short_fuzz_run_finds_nothing(tmp_path: Path) -> None:
    words = [sys.executable, str(FUZZER), "--count", "200", "--seed", "7"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=240, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 files, 0 failures" in done.stdout
