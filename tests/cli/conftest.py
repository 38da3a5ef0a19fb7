"""Small folders of real pictures, and a short run on them."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import Command, pvt_process
from pyramidvit.data.digits import load_digit_data


@pytest.fixture
def pvt(tmp_path: Path) -> Command:
    """Runs `pvt` to its end, in a temporary folder."""

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        process = pvt_process(*words, cwd=tmp_path)
        out, error = process.communicate(timeout=300)
        return subprocess.CompletedProcess(words, process.returncode, out, error)

    return run


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real scans of three digits as class folders: 27 training and 15 validation pictures, in as
    many kinds of files as people have."""
    root = tmp_path_factory.mktemp("digits")
    data = load_digit_data(seed=0)
    for split, count in (("train", 9), ("validation", 5)):
        taken = dict.fromkeys((0, 1, 2), 0)
        source = data.splits[split]
        for i in range(len(source)):
            sample = source[i]
            label = sample.target.label
            if taken.get(label, count) < count:
                folder = root / split / data.classes.names[label]
                folder.mkdir(parents=True, exist_ok=True)
                save_oddly(sample.image.resize((40, 36)), folder / str(i), taken[label])
                taken[label] += 1
    return root


def save_oddly(image: Image.Image, stem: Path, kind: int) -> None:
    """Writes one of nine kinds of picture files."""
    grey = image.convert("L")
    if kind == 0:
        grey.save(f"{stem}.png")
    elif kind == 1:
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(f"{stem}.png")
    elif kind == 2:
        image.convert("P").save(f"{stem}.gif")
    elif kind == 3:
        image.convert("RGBA").save(f"{stem}.PNG")
    elif kind == 4:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.rotate(90, expand=True).save(f"{stem}.jpg", exif=exif)
    elif kind == 5:
        image.convert("P").save(f"{stem}.png")
    else:
        image.save(f"{stem}.{('jpeg', 'bmp', 'webp')[kind % 3]}")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, digit_folder: Path) -> Path:
    """The run folder of a short training on `digit_folder`."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ("train", "--data", str(digit_folder), "--output", str(folder), "image_size=32")
    process = pvt_process(*words, "--epochs", "2", "--batch-size", "8", "--workers", "1")
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return folder
