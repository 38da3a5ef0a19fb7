"""Small checkpoints of every format, and ways to spoil them, for `fuzz_checkpoints.py`."""

import argparse
import functools
import io
import json
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from foreign import prefixed, tiny_state
from forged import forge
from pyramidvit import read_checkpoint, save_checkpoint
from pyramidvit.weights.names import TIMM, TRANSFORMERS_V1, TRANSFORMERS_V2, cut_kv, rename

CANARY = "canary"  # the file, in the working folder, that hostile code would leave


def make_seeds(folder: Path) -> list[Path]:
    """Small files of every format, each a PVT that loads."""
    folder.mkdir(exist_ok=True)
    v1, v2 = shorten(tiny_state("v1")), tiny_state("v2")
    meta = {"CLASSES": ("a", "b"), "epoch": 3}
    nested = {
        "meta": meta,
        "state_dict": prefixed(v2, "backbone."),
        "args": argparse.Namespace(lr=0.1),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}},
    }
    torch.save(v2, folder / "bare.pth")
    torch.save(nested, folder / "nested.pth")
    torch.save({"model": v1}, folder / "v1.pth")
    torch.save(nested, folder / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(v1, folder / "old_v1.pth", _use_new_zipfile_serialization=False)
    torch.save(v2, folder / "protocol4.pth", pickle_protocol=4)
    forge(folder / "forged.pth", v2, {})
    timm = {rename(k, TIMM.rows): v for k, v in v2.items()}
    torch.save({"state_dict": timm, "state_dict_ema": timm}, folder / "timm.pth")
    record = {"classes": [{"id": k, "name": f"c{k}"} for k in range(12)], "figures": {"top1": 0.5}}
    save_checkpoint(folder / "ours.safetensors", v2, record)
    half = {k: v.half() for k, v in v1.items()}
    save_checkpoint(folder / "half.safetensors", half, {})
    for family, state, naming in (("v1", v1, TRANSFORMERS_V1), ("v2", v2, TRANSFORMERS_V2)):
        body = cut_kv({k: v for k, v in state.items() if not k.startswith("head.")})
        head = {k.replace("head", "classifier"): v for k, v in state.items() if "head." in k}
        names = {f"pvt.{rename(k, naming.rows)}": v for k, v in body.items()}
        save_directory(folder / f"transformers_{family}", names | head)
    return sorted(folder.iterdir())


def shorten(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A v1 with position tables for images of 32 pixels."""
    short = dict(state)
    for stage, count in ((1, 64), (2, 16), (3, 4), (4, 2)):
        table = state[f"pos_embed{stage}"][:, :count]
        short[f"pos_embed{stage}"] = torch.clone(table)
    return short


def save_directory(folder: Path, state: dict[str, Tensor]) -> None:
    folder.mkdir()
    items, places = list(state.items()), {}
    for number, part in enumerate((items[:30], items[30:])):
        name = f"model-{number}.safetensors"
        save_checkpoint(folder / name, dict(part), {})
        places |= dict.fromkeys(dict(part), name)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    labels = {str(k): f"c{k}" for k in range(12)}
    (folder / "config.json").write_text(json.dumps({"id2label": labels, "layer_norm_eps": 1e-6}))


# Mutations: bytes to bytes.

TOUCH = f"open({CANARY!r},'w').close()".encode()
SYSTEM = f"echo > {CANARY}".encode()
HOSTILE = (  # pieces of pickles that would leave the canary if they were run
    b"cbuiltins\nexec\nX" + struct.pack("<I", len(TOUCH)) + TOUCH + b"\x85R",
    b"c__builtin__\neval\nX" + struct.pack("<I", len(TOUCH)) + TOUCH + b"\x85R",
    b"cos\nsystem\nX" + struct.pack("<I", len(SYSTEM)) + SYSTEM + b"\x85R",
    b"cposix\nsystem\nX" + struct.pack("<I", len(SYSTEM)) + SYSTEM + b"\x85R",
    b"(X" + struct.pack("<I", len(SYSTEM)) + SYSTEM + b"ios\nsystem\n",
    b"\x8c\x02os\x8c\x06system\x93X" + struct.pack("<I", len(SYSTEM)) + SYSTEM + b"\x85R",
    b"cbuiltins\ngetattr\ncos\nX\x06\x00\x00\x00system\x86R",
    b"ctorch\nload\nX\x01\x00\x00\x00x\x85R",
    b"cnumpy.core.multiarray\nscalar\nX" + struct.pack("<I", len(SYSTEM)) + SYSTEM + b"\x85R",
)
OPCODES = (
    b"().0123FNIJKLMPQRSTUVXabcdeghijlopqrstu}]\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8c\x93\x94"
)
TEXTS = (
    *(b"patch_embed1.proj.weight", b"backbone.", b"state_dict", b"FloatStorage", b"HalfStorage"),
    *(
        b"torch\n_utils",
        b"_rebuild_tensor_v2",
        b"archive/data.pkl",
        b"__metadata__",
        b"F32",
        b"BF16",
    ),
    *(
        b'"shape":[-1]',
        b'"data_offsets":[0,0]',
        b"../x",
        b"\xff\xfe\x00",
        b"\n",
        b"{",
        b"}",
        b"NaN",
    ),
)
NUMBERS = (0, 1, -1, 2, 127, 255, 256, 2**15, 2**31 - 1, -(2**31), 2**32, 2**40, 2**62, -(2**63))


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def leave_out(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 4, 30, 1000))]


def repeat(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 8, 100, 3000))]
    data[start:start] = piece * rng.choice((1, 2, 20))


def swap(data: bytearray, rng: random.Random) -> None:
    size = rng.choice((1, 8, 64, 512))
    one, two = (rng.randrange(max(len(data) - size, 1)) for _ in range(2))
    first, second = bytes(data[one : one + size]), bytes(data[two : two + size])
    data[one : one + size], data[two : two + size] = second, first


def put_number(data: bytearray, rng: random.Random) -> None:
    """Overwrites a length, an offset, a size, wherever it hits one."""
    form = rng.choice(("<b", "<h", "<i", "<q"))
    bits = 8 * struct.calcsize(form)
    value = rng.choice(NUMBERS) % 2**bits
    start = rng.randrange(len(data))
    data[start : start + bits // 8] = value.to_bytes(bits // 8, "little")


def put_text(data: bytearray, rng: random.Random) -> None:
    start, text = rng.randrange(len(data)), rng.choice(TEXTS)
    data[start : start + rng.choice((0, len(text)))] = text


def put_opcodes(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(min(len(data), 20_000))
    data[start:start] = bytes(rng.choice(OPCODES) for _ in range(rng.choice((1, 2, 5))))


def put_hostile(data: bytearray, rng: random.Random) -> None:
    """Puts a hostile piece where a pickle probably has an end of an instruction."""
    places = [i for i in range(min(len(data), 20_000)) if data[i] in b".R\x85u}"]
    start = rng.choice(places or [0])
    data[start:start] = rng.choice(HOSTILE)


def change_digits(data: bytearray, rng: random.Random) -> None:
    """Other numbers in JSON and in the names of parameters."""
    digits = [i for i in range(min(len(data), 20_000)) if 48 <= data[i] <= 57]
    for _ in range(rng.choice((1, 1, 3))):
        if digits:
            data[rng.choice(digits)] = rng.choice(b"0123456789-e.")


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(flip, cut, leave_out, repeat, swap, put_number, put_text),
    *(put_opcodes, put_hostile, change_digits),
)


def mutate(data: bytes, rng: random.Random, others: list[bytes]) -> tuple[str, bytes]:
    """A mutant and the name of what was done to it; one in ten is spliced from two files."""
    if rng.random() < 0.1:
        other = rng.choice(others)
        return "splice", data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]
    mutation, changed = rng.choice(MUTATIONS), bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if changed:
            mutation(changed, rng)
    return mutation.__name__, bytes(changed)


def mutate_inside(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """The pickle of a zip archive changed and packed again, so that its checksums hold."""
    result = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if rng.random() < 0.03 else zipfile.ZIP_STORED
    name = ""
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w", kind) as new:
        for entry in old.namelist():
            content = old.read(entry)
            if entry.endswith("data.pkl"):
                name, content = mutate(content, rng, [content])
            elif rng.random() < 0.02:
                content = content[: rng.randrange(len(content) + 1)]
            new.writestr(entry, content)
    return f"{name} inside", result.getvalue()


# Mutations of what the bytes mean: tensors and names.

SHAPES = ((), (0,), (1,), (4,), (4, 4), (1, 49, 8), (4, 3, 7, 7), (2, 0, 3), (1,) * 6, (1,) * 32)
SIZES = (0, 1, -1, 3, 7, 2**31, 2**32, 2**40, 2**62, -(2**63), 2**64)


@functools.lru_cache
def tensors_of(origin: Path) -> dict[str, Tensor]:

    return read_checkpoint(origin).state


def bend(origin: Path, path: Path, rng: random.Random) -> str:
    """Writes a sound file of tensors, names or claims that are not."""
    state = dict(tensors_of(origin))
    lies, words = {}, set()
    for _ in range(rng.choice((1, 1, 2, 3, 10))):
        name = rng.choice(list(state))
        word = rng.choice(("shape", "kind", "value", "name", "drop", "copy", "prefix", "lie"))
        words.add(word)
        if word == "shape":
            state[name] = torch.ones(rng.choice(SHAPES))
        elif word == "kind":
            kinds = (torch.int64, torch.bool, torch.float16, torch.bfloat16, torch.uint8)
            state[name] = state[name].to(rng.choice((*kinds, torch.complex64, torch.float8_e5m2)))
        elif word == "value":
            state[name] = torch.full(state[name].shape, rng.choice((float("nan"), 1e30, 0.0, -1.0)))
        elif word == "name":
            text = bytearray(name.encode())
            change_digits(text, rng)
            state[text.decode()] = state.pop(name)
        elif word == "drop":
            del state[name]
        elif word == "copy":
            state[rng.choice(list(state))] = state[name].clone()
        elif word == "prefix":
            prefix = rng.choice(("a.", "module.", "pvt.", "encoder.", "x"))
            some = set(rng.sample(list(state), len(state) // rng.choice((1, 2, 5))))
            state = {(prefix + k if k in some else k): v for k, v in state.items()}
        else:
            claim = rng.choice(("numel", "offset", "size", "stride"))
            sizes = tuple(rng.choice(SIZES) for _ in range(rng.choice((1, 2, 4))))
            lies[name] = {claim: sizes if claim in ("size", "stride") else rng.choice(SIZES)}
    if path.suffix == ".safetensors" and "lie" not in words:
        save_checkpoint(path, state, {"classes": rng.choice(([], ["a"], {}, 3, [{"name": 1}]))})
    else:
        state = {k: v.float() if v.dtype != torch.float32 else v for k, v in state.items()}
        forge(path, state, lies, legacy=rng.random() < 0.5)
    return f"bent {'+'.join(sorted(words))}"


def make_case(seeds: list[Path], folder: Path, seed: int, number: int) -> tuple[str, Path]:
    """Writes case `number`; returns what was done and the path to be read."""
    rng = random.Random(f"{seed}:{number}")
    origin = seeds[number % len(seeds)]
    path = folder / f"case{number}{origin.suffix}"
    if rng.random() < 0.3 and origin.stem != "protocol4":
        path = path.with_suffix(rng.choice((".pth", ".safetensors")))
        return bend(origin, path, rng), path
    if origin.is_dir():
        shutil.copytree(origin, path)
        victim = rng.choice(sorted(path.iterdir()))
        what, mutant = mutate(victim.read_bytes(), rng, [victim.read_bytes()])
        victim.write_bytes(mutant)
        return what, path
    data = origin.read_bytes()
    if data.startswith(b"PK") and rng.random() < 0.6:
        what, mutant = mutate_inside(data, rng)
    else:
        what, mutant = mutate(data, rng, [s.read_bytes() for s in seeds if s.is_file()])
    path.write_bytes(mutant)
    return what, path
