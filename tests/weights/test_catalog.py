"""The catalog of published weights: its rows make sense, names are found, the page shows it."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pyramidvit import list_models
from pyramidvit.cli.models import PUBLISHED_TOP1, list_weights
from pyramidvit.errors import UserError
from pyramidvit.weights.catalog import CATALOG, Published, find_published, published_for

PAGE = Path(__file__).parents[2] / "docs" / "catalog.md"


def test_every_model_has_its_official_weights_and_published_score() -> None:
    for name in list_models():
        published = published_for(name)
        assert published == find_published(name)
        assert (published.model, published.source, published.task) == (
            name,
            "official",
            "classification",
        )
        assert published.place == "url"
        assert published.score == PUBLISHED_TOP1[name]


def test_the_catalog_has_as_many_rows_as_were_published() -> None:
    counted = Counter((row.source, row.place, row.task) for row in CATALOG)
    assert counted == {
        ("official", "url", "classification"): 11,
        ("timm", "hub", "classification"): 7,
        ("transformers", "hub", "classification"): 15,
        ("mmdetection", "url", "detection"): 9,
        ("official", "drive", "detection"): 32,
        ("official", "drive", "segmentation"): 4,
    }


def test_no_two_rows_share_a_name_or_a_file() -> None:
    names = [row.name for row in CATALOG]
    files = [row.file for row in CATALOG if row.file]
    assert len(set(names)) == len(names)
    assert len(set(files)) == len(files)


def test_no_two_rows_share_an_address_but_for_the_slip_of_the_official_table() -> None:
    counted = Counter(row.address for row in CATALOG)
    twice = [row.name for row in CATALOG if counted[row.address] > 1]
    assert twice == ["retinanet_pvt_l_fpn_1x_coco", "mask_rcnn_pvt_l_fpn_1x_coco"]
    assert find_published("mask_rcnn_pvt_l_fpn_1x_coco").note


@pytest.mark.parametrize("row", CATALOG, ids=lambda row: row.name)
def test_a_row_is_well_formed(row: Published) -> None:
    assert row.model in list_models()
    assert 30 < row.score < 90
    assert (row.head is None) == (row.task == "classification")
    assert (row.crop_share is not None) == (row.task == "classification")
    assert (row.mask_ap is not None) == (row.head in ("mask_rcnn", "cascade_mask_rcnn"))
    assert row.sha256 is None or re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", row.sha256)
    pattern = {
        "url": r"https://(github\.com|download\.openmmlab\.com)/\S+/[\w.-]+\.pth",
        "hub": r"[\w-]+/[\w.-]+",
        "drive": r"https://drive\.google\.com/file/d/[\w-]{33}/view",
    }[row.place]
    assert re.fullmatch(pattern, row.address)
    assert row.file is None or row.file.endswith(".pth")


def test_the_digest_in_an_openmmlab_file_name_is_the_row_s() -> None:
    for row in CATALOG:
        if row.source == "mmdetection":
            assert row.file is not None
            assert row.file.endswith(f"-{row.sha256}.pth")


@pytest.mark.parametrize(
    ("typed", "source", "model"),
    [
        ("pvt_v2_b0", "official", "pvt_v2_b0"),
        ("pvt_v2_b0.pth", "official", "pvt_v2_b0"),
        (
            "https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b0.pth",
            "official",
            "pvt_v2_b0",
        ),
        ("pvt_v2_b2_li.in1k", "timm", "pvt_v2_b2_li"),
        ("timm/pvt_v2_b0.in1k", "timm", "pvt_v2_b0"),
        ("hf-hub:timm/pvt_v2_b0.in1k", "timm", "pvt_v2_b0"),
        ("OpenGVLab/pvt_v2_b2_linear", "transformers", "pvt_v2_b2_li"),
        ("Zetatech/pvt-tiny-224", "transformers", "pvt_tiny"),
        ("retinanet_pvt-t_fpn_1x_coco", "mmdetection", "pvt_tiny"),
        ("retinanet_pvt_t_fpn_1x_coco", "official", "pvt_tiny"),
    ],
)
def test_the_names_that_users_type_are_found(typed: str, source: str, model: str) -> None:
    found = find_published(typed)
    assert (found.source, found.model) == (source, model)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"nearest: pvt_v2_b[0-9]\S*, pvt_v2_b[0-9]"):
        find_published("pvt_v2_b9")
    with pytest.raises(UserError, match="nearest: OpenGVLab/pvt_v2_b"):
        find_published("OpenGVLab/pvt_v2_b7")
    with pytest.raises(UserError, match="no weights were published for pvt_huge; nearest: pvt_"):
        published_for("pvt_huge")


def test_timm_names_the_same_repositories() -> None:
    timm = pytest.importorskip("timm")
    for row in CATALOG:
        if row.source == "timm":
            settings = timm.get_pretrained_cfg(row.name)
            assert settings.hf_hub_id.rstrip("/") in ("timm", row.address)
            assert settings.crop_pct == row.crop_share
            assert settings.license == str(row.licence).lower()


def test_the_catalog_and_its_list_load_no_torch() -> None:
    code = (
        "import sys; from pyramidvit.cli import main\n"
        "from pyramidvit.weights import catalog, download\n"
        "assert main(['models', '--weights', 'pvt_v2_b0']) == 0\n"
        "assert not {'torch', 'numpy', 'timm'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_list_tells_what_is_cached_and_what_lies_on_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "hub" / "checkpoints" / "pvt_tiny.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    list_weights("pvt_tiny", as_json=False)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["pvt_tiny"].rstrip().endswith("here")
    assert lines["retinanet_pvt-t_fpn_1x_coco"].rstrip().endswith("server")
    assert lines["fpn_pvt_t_ade20k_40k"].rstrip().endswith("Drive, by hand")
    list_weights("pvt_[ts]*", as_json=True)
    records = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert records["pvt_tiny"]["cached"] == str(path)
    assert records["pvt_small"]["cached"] is None
    with pytest.raises(UserError, match="no weights are named resnet50; nearest: "):
        list_weights("resnet50", as_json=False)


def page_row(row: Published) -> str:
    where = f"`{row.address}`" if row.place == "hub" else f"[{row.place}]({row.address})"
    score = f"{row.metric} {row.score}" + (f", mask AP {row.mask_ap}" if row.mask_ap else "")
    digest = f"`{row.sha256[:8]}`" if row.sha256 else ""
    cells = (f"`{row.name}`", f"`{row.model}`", score, row.size or "", digest, where)
    return f"| {' | '.join(cells)} |"


def test_the_page_shows_the_whole_catalog() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    shown = [s for s in lines if s.startswith("| `") and s.count("|") == 7]
    expected = [page_row(row) for row in CATALOG]
    assert shown == expected, "docs/catalog.md should have these rows:\n" + "\n".join(expected)


def test_the_page_names_the_rows_without_a_licence() -> None:
    without = [row.name for row in CATALOG if row.licence is None]
    assert {row.licence for row in CATALOG} == {"Apache-2.0", None}
    assert without == ["Xrenya/pvt-medium-224"]
    assert f"of `{without[0]}` none\nwas found" in PAGE.read_text(encoding="utf-8")
