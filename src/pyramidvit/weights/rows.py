"""What was published and where, as plain rows; `catalog` makes records of them.

Where the rows come from:
* OFFICIAL: release v2 and classification/README.md of github.com/whai362/PVT;
* TIMM: the default configurations in its pvt_v2.py, scores of its results/results-imagenet.csv;
* TRANSFORMERS: the repositories named in its documentation and conversion scripts;
* MMDETECTION: its configs/pvt/metafile.yml;
* DRIVE_DETECTION, DRIVE_SEGMENTATION: detection/README.md and segmentation/README.md of
  github.com/whai362/PVT, under the names of their configuration files.
Two kinds of official rows have scores but no weights anywhere: Semantic FPN with PVTv2 (the
download cells of github.com/whai362/PVTv2-Seg are empty), and Mask R-CNN with the 3x schedule.
"""

# model, ImageNet top-1, size ("14M" in the README, which are binary megabytes)
OFFICIAL = (
    ("pvt_tiny", 75.1, "51 MiB"),
    ("pvt_small", 79.8, "93 MiB"),
    ("pvt_medium", 81.2, "168 MiB"),
    ("pvt_large", 81.7, "234 MiB"),
    ("pvt_v2_b0", 70.5, "14 MiB"),
    ("pvt_v2_b1", 78.7, "54 MiB"),
    ("pvt_v2_b2", 82.0, "97 MiB"),
    ("pvt_v2_b2_li", 82.1, "86 MiB"),
    ("pvt_v2_b3", 83.1, "173 MiB"),
    ("pvt_v2_b4", 83.6, "239 MiB"),
    ("pvt_v2_b5", 83.8, "313 MiB"),
)

# model, ImageNet top-1 with timm's crop of 0.9, size
TIMM = (
    ("pvt_v2_b0", 70.654, "14.7 MB"),
    ("pvt_v2_b1", 78.698, "56.1 MB"),
    ("pvt_v2_b2", 82.062, "101 MB"),
    ("pvt_v2_b2_li", 82.200, "90.2 MB"),
    ("pvt_v2_b3", 83.120, None),
    ("pvt_v2_b4", 83.710, None),
    ("pvt_v2_b5", 83.760, "328 MB"),
)

# repository, model, size, licence
TRANSFORMERS = (
    ("Zetatech/pvt-tiny-224", "pvt_tiny", "52.9 MB", "Apache-2.0"),
    ("Zetatech/pvt-small-224", "pvt_small", None, "Apache-2.0"),
    ("Zetatech/pvt-medium-224", "pvt_medium", "177 MB", "Apache-2.0"),
    ("Zetatech/pvt-large-224", "pvt_large", "246 MB", "Apache-2.0"),
    ("Xrenya/pvt-tiny-224", "pvt_tiny", "52.9 MB", "Apache-2.0"),
    ("Xrenya/pvt-small-224", "pvt_small", None, "Apache-2.0"),
    ("Xrenya/pvt-medium-224", "pvt_medium", None, None),
    ("Xrenya/pvt-large-224", "pvt_large", "246 MB", "Apache-2.0"),
    ("OpenGVLab/pvt_v2_b0", "pvt_v2_b0", "14.7 MB", "Apache-2.0"),
    ("OpenGVLab/pvt_v2_b1", "pvt_v2_b1", "56.1 MB", "Apache-2.0"),
    ("OpenGVLab/pvt_v2_b2", "pvt_v2_b2", "101 MB", "Apache-2.0"),
    ("OpenGVLab/pvt_v2_b2_linear", "pvt_v2_b2_li", "90.3 MB", "Apache-2.0"),
    ("OpenGVLab/pvt_v2_b3", "pvt_v2_b3", "181 MB", "Apache-2.0"),
    ("OpenGVLab/pvt_v2_b4", "pvt_v2_b4", "250 MB", "Apache-2.0"),
    ("OpenGVLab/pvt_v2_b5", "pvt_v2_b5", "328 MB", "Apache-2.0"),
)

# name (the folder's and the file's too), model, box AP, date and digest in the file's name
MMDETECTION = (
    ("retinanet_pvt-t_fpn_1x_coco", "pvt_tiny", 36.6, "20210831_103110-17b566bd"),
    ("retinanet_pvt-s_fpn_1x_coco", "pvt_small", 40.4, "20210906_142921-b6c94a5b"),
    ("retinanet_pvt-m_fpn_1x_coco", "pvt_medium", 41.7, "20210831_103243-55effa1b"),
    ("retinanet_pvtv2-b0_fpn_1x_coco", "pvt_v2_b0", 37.1, "20210831_103157-13e9aabe"),
    ("retinanet_pvtv2-b1_fpn_1x_coco", "pvt_v2_b1", 41.2, "20210831_103318-7e169a7d"),
    ("retinanet_pvtv2-b2_fpn_1x_coco", "pvt_v2_b2", 44.6, "20210901_174843-529f0b9a"),
    ("retinanet_pvtv2-b3_fpn_1x_coco", "pvt_v2_b3", 46.0, "20210903_151512-8357deff"),
    ("retinanet_pvtv2-b4_fpn_1x_coco", "pvt_v2_b4", 46.3, "20210901_170151-83795c86"),
    ("retinanet_pvtv2-b5_fpn_1x_coco", "pvt_v2_b5", 46.1, "20210902_201800-3420eb57"),
)

SPARSE = "fpn_300_proposals_crop_mstrain_480-800_3x_coco"

# head: model, name behind the head's, box AP, mask AP, Drive id
DRIVE_DETECTION: dict[str, tuple[tuple[str, str, float, float | None, str], ...]] = {
    "retinanet": (
        ("pvt_tiny", "pvt_t_fpn_1x_coco", 36.7, None, "1ZbS-g3oqAChkYiDYTiZLzw61lal2pgbl"),
        ("pvt_small", "pvt_s_fpn_1x_coco_640", 38.7, None, "1L5wh2rYsVnuC_CEeFE6yMhU1kENt2gnk"),
        ("pvt_small", "pvt_s_fpn_1x_coco", 40.4, None, "1U02ngyT_IYxS8SlU3WXf5r0TFsoBE3Lm"),
        ("pvt_medium", "pvt_m_fpn_1x_coco", 41.9, None, "1DJCmbrpLJhQi20ztSCmtruDaXtqOsrns"),
        ("pvt_large", "pvt_l_fpn_1x_coco", 42.6, None, "1zG_Ji_GamjQgPbe6hHOjZlIHs5jZbVFL"),
        ("pvt_v2_b0", "pvt_v2_b0_fpn_1x_coco", 37.2, None, "1K6OkU3CYVglnLSDSvsY8HpDcISB6eKzM"),
        ("pvt_v2_b1", "pvt_v2_b1_fpn_1x_coco", 41.2, None, "1UyBfxAyQygVgAtBeynXrG2iCJj70kiP9"),
        (
            "pvt_v2_b2_li",
            "pvt_v2_b2_li_fpn_1x_coco",
            43.6,
            None,
            "1v3j4D1FZuasPi6lGHoHM3bok7PM8F1sg",
        ),
        ("pvt_v2_b2", "pvt_v2_b2_fpn_1x_coco", 44.6, None, "1VqrLiQ0329HpqiG3BU3q0LoXi6ncS1_k"),
        ("pvt_v2_b3", "pvt_v2_b3_fpn_1x_coco", 45.9, None, "1Lz4qRtDoYT8RvDpVxJCvstM3qTtHlLqL"),
        ("pvt_v2_b4", "pvt_v2_b4_fpn_1x_coco", 46.1, None, "1GCiE6tniZrG36vumnGi9d79xQEXCS-l2"),
        ("pvt_v2_b5", "pvt_v2_b5_fpn_1x_coco", 46.2, None, "10cUAXpajabSpAJVSPRNywkOiUlgIjN0e"),
    ),
    "mask_rcnn": (
        ("pvt_tiny", "pvt_t_fpn_1x_coco", 36.7, 35.1, "1JGcl7ZnDIf-qQjrCXVtb71XeRWOIu7Xf"),
        ("pvt_small", "pvt_s_fpn_1x_coco", 40.4, 37.8, "1XGJQTivM_KviRDVvKTPgkJQhFco2oXSA"),
        ("pvt_medium", "pvt_m_fpn_1x_coco", 42.0, 39.0, "1m0TFlJOVSLaAA4alVqp_VRckg0uRGTJ-"),
        ("pvt_large", "pvt_l_fpn_1x_coco", 42.9, 39.5, "1zG_Ji_GamjQgPbe6hHOjZlIHs5jZbVFL"),
        ("pvt_v2_b0", "pvt_v2_b0_fpn_1x_coco", 38.2, 36.2, "1eRDCU0Erv-kWwCFCwU_VljdjpHk9ktAY"),
        ("pvt_v2_b1", "pvt_v2_b1_fpn_1x_coco", 41.8, 38.8, "1Y4xgILkl7bh3-DV3rksZTGlN_VTLAIkO"),
        (
            "pvt_v2_b2_li",
            "pvt_v2_b2_li_fpn_1x_coco",
            44.1,
            40.5,
            "1DWUryElNqWzaNuPafWL0GuOSQxqvqxba",
        ),
        ("pvt_v2_b2", "pvt_v2_b2_fpn_1x_coco", 45.3, 41.2, "1F3-FBjDLkskZFvhECO3sSkHwBg8Mx_j0"),
        ("pvt_v2_b3", "pvt_v2_b3_fpn_1x_coco", 47.0, 42.5, "1Uq9KpUSLt1-B_6tgVTc1-neuxYBMTI1S"),
        ("pvt_v2_b4", "pvt_v2_b4_fpn_1x_coco", 47.5, 42.7, "1IpdgEHAe3XNlIldk6drzOWRcE-wFCv7v"),
        ("pvt_v2_b5", "pvt_v2_b5_fpn_1x_coco", 47.4, 42.5, "1BvI5XXaGbv3tbLrXbVQ5K45gFVEHbBGX"),
    ),
    "cascade_mask_rcnn": (
        (
            "pvt_v2_b2_li",
            "pvt_v2_b2_li_fpn_3x_mstrain_fp16",
            50.9,
            44.0,
            "1dG4O-M0EqKYdTtZqJdRjJopiwwnoakee",
        ),
        (
            "pvt_v2_b2",
            "pvt_v2_b2_fpn_3x_mstrain_fp16",
            51.1,
            44.4,
            "11jmqwLQSqQ1zin9D2sRYqeC8YfzGaN3V",
        ),
    ),
    "atss": (
        (
            "pvt_v2_b2_li",
            "pvt_v2_b2_li_fpn_3x_mstrain_fp16",
            48.9,
            None,
            "1CB4teTBwOpofCrHM91QvKKFLKcVMzZVi",
        ),
        (
            "pvt_v2_b2",
            "pvt_v2_b2_fpn_3x_mstrain_fp16",
            49.9,
            None,
            "1TKbj-i7oLgC7zstFuV0Neumu4iKMpBGh",
        ),
    ),
    "gfl": (
        (
            "pvt_v2_b2_li",
            "pvt_v2_b2_li_fpn_3x_mstrain_fp16",
            49.2,
            None,
            "1CnXlOEs9g7-LAoaDFcukTh5x0R4popZp",
        ),
        (
            "pvt_v2_b2",
            "pvt_v2_b2_fpn_3x_mstrain_fp16",
            50.2,
            None,
            "1XODtTQ3UAQz75vqhXBddqn7JpQke0vn6",
        ),
    ),
    "sparse_rcnn": (
        ("pvt_v2_b2_li", f"pvt_v2_b2_li_{SPARSE}", 48.9, None, "1W8Wt2WbyhEi0JOUblaEcH9gx0I6z1wAv"),
        ("pvt_v2_b2", f"pvt_v2_b2_{SPARSE}", 50.1, None, "1xtn-wD_nYSwudF1SqsSHl7opEXM4dhPN"),
    ),
    "detr": (
        ("pvt_small", "pvt_s_8x2_50ep_coco", 34.7, None, "1rIf2qUEvaeV2ZMzhVyiXxEplE0bCi3Jv"),
    ),
}

# model, name, mIoU of the released code (0.9 to 2.1 above the paper's), Drive id
DRIVE_SEGMENTATION = (
    ("pvt_tiny", "fpn_pvt_t_ade20k_40k", 36.6, "13SaiOJ9hH7Wwg_AyeQ158LNV9vtjq6Lu"),
    ("pvt_small", "fpn_pvt_s_ade20k_40k", 41.9, "13fy-FXAfYnHgHRaUiJWVBON670wFLIiD"),
    ("pvt_medium", "fpn_pvt_m_ade20k_40k", 43.5, "10ErJJZCcucnjjo8et2ivuHRzxbwc04y2"),
    ("pvt_large", "fpn_pvt_l_ade20k_40k", 43.5, "1JkaXbTorIWLj9Oe5Dh6kzH_1vtrRFJRL"),
)

# sha256 of the weights: those of hub repositories (their model.safetensors) as their pages state
# them; that of pvt_v2_b0.pth as a third party that downloaded it pinned it, for the official
# release states none.
DIGESTS = {
    "pvt_v2_b0": "fbb931ad59ab4d64e3f4370991326803e3af882fcaa877b81550d368d1fbab1f",
    "pvt_v2_b0.in1k": "d0927f8c963fa7ae1ca6cd459449a076a954c561245ca6025103fceffd2df34c",
    "pvt_v2_b1.in1k": "0cb38d3df58e50bb591e99ded2a1a2a02bc807415e9bed4d4076428239112caa",
    "pvt_v2_b2.in1k": "0bff520d64b91bdbb35f2b5bff2b62d35a9d9c6d6a5056e683f1e7ce556d0e5e",
    "pvt_v2_b5.in1k": "070ea6f6e2b9c06fa8dc9ba943c04d5fb74df01f2cb328d95ae65c94c304176b",
    "Zetatech/pvt-tiny-224": "afa86f52bada08f84dab81dd633c6207bbc7802bd4cb24ef9d089cc09488985d",
    "OpenGVLab/pvt_v2_b0": "83f9f76db888d15a114a2a4f29f7a951cd22faaa461ded0e64d97c120bcc6314",
    "OpenGVLab/pvt_v2_b1": "ce664e249b8d37bff2b212d7a32c29bff7ff8b6ea01f99ddb830b5465b347c5d",
    "OpenGVLab/pvt_v2_b2": "7de92c6b5d39f1b50f7d4a3f45ec5c18c56f171b370f05c34d70ae977db0b61d",
    "OpenGVLab/pvt_v2_b2_linear": "446a8206dea5924c6c59b975a3dc7cc42fe1df81c095fe5308ded479112cad4d",  # noqa: E501
    "OpenGVLab/pvt_v2_b3": "5aa3abb052da631cf44ae71ee5996da1280be694c483597f58bc3b9a1a4ecfd2",
    "OpenGVLab/pvt_v2_b4": "8ff81ec569db6a14bd1d3cd134300ef470295e15c68a3d05ea4c0d07df3b1d38",
    "OpenGVLab/pvt_v2_b5": "ccbc55cf99f06303b7bf5c7a34f9774e41143e127f17eedbb922f2d3d1755312",
}
