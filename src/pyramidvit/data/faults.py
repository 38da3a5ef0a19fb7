"""What can be wrong with annotations, and what loading does about it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..errors import UserError

Consequence = Literal[
    "refused", "left out", "clipped", "skipped", "kept", "kept, and no masks are used"
]


class Fault(NamedTuple):
    """Something wrong.

    Attributes:
        kind: A key of `KINDS`.
        place: The file, and the line, key or number of the record in it.
        text: What is wrong there.
    """

    kind: str
    place: str
    text: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Attributes:
        one: What one of them is called.
        many: What several are.
        then: What training and evaluation do: refuse all data, leave the record out, clip the box,
            skip the picture and name it, or keep the record as it is.
    """

    one: str
    many: str
    then: Consequence

    def count(self, number: int) -> str:
        """The number and what is counted."""
        return f"{number:,} {self.one if number == 1 else self.many}"


KINDS = {
    "bad_record": Kind(
        "record that cannot be understood", "records that cannot be understood", "refused"
    ),
    "unknown_class": Kind("object of an unknown class", "objects of an unknown class", "refused"),
    "duplicate_class": Kind(
        "class with an id that is taken", "classes with an id that is taken", "refused"
    ),
    "duplicate_image": Kind(
        "image with an id that is taken", "images with an id that is taken", "refused"
    ),
    "path_outside": Kind(
        "file name that leads out of the data's folder",
        "file names that lead out of the data's folder",
        "refused",
    ),
    "no_pictures": Kind(
        "annotation file whose pictures are nowhere",
        "annotation files whose pictures are nowhere",
        "refused",
    ),
    "unknown_difficult": Kind(
        "object of which it is not known whether it is difficult",
        "objects of which it is not known whether they are difficult",
        "kept",
    ),
    "empty_class": Kind(
        "class folder without pictures", "class folders without pictures", "refused"
    ),
    "no_classes": Kind("data set without a class", "data sets without a class", "refused"),
    "no_images": Kind(
        "annotation file without an image", "annotation files without an image", "left out"
    ),
    "no_annotation": Kind(
        "listed image without an annotation file",
        "listed images without an annotation file",
        "left out",
    ),
    "no_map": Kind("picture without a label map", "pictures without a label map", "left out"),
    "no_picture": Kind("label map without a picture", "label maps without a picture", "left out"),
    "second_map": Kind("second map of a picture", "second maps of a picture", "left out"),
    "unknown_image": Kind("object of an unknown image", "objects of an unknown image", "left out"),
    "not_finite": Kind(
        "box with a number that is not finite", "boxes with numbers that are not finite", "left out"
    ),
    "negative_size": Kind("box of negative size", "boxes of negative size", "left out"),
    "zero_area": Kind("box without area", "boxes without area", "left out"),
    "far_outside": Kind(
        "box wholly outside its image", "boxes wholly outside their image", "left out"
    ),
    "box_outside": Kind(
        "box that reaches out of its image", "boxes that reach out of their image", "clipped"
    ),
    "missing_file": Kind("missing picture", "missing pictures", "skipped"),
    "unreadable": Kind("unreadable picture", "unreadable pictures", "skipped"),
    "size_differs": Kind(
        "picture of another size than its annotation says",
        "pictures of another size than their annotation says",
        "skipped",
    ),
    "bad_mask": Kind(
        "mask that is damaged or of another size",
        "masks that are damaged or of another size",
        "skipped",
    ),
    "unknown_value": Kind(
        "label map with a value that is no class",
        "label maps with values that are no class",
        "skipped",
    ),
    "bad_map": Kind("unreadable label map", "unreadable label maps", "skipped"),
    "no_mask": Kind(
        "object without a mask", "objects without a mask", "kept, and no masks are used"
    ),
    "duplicate_id": Kind(
        "object with an id that is taken", "objects with an id that is taken", "kept"
    ),
    "repeated_name": Kind(
        "class with the name of another", "classes with the name of another", "kept"
    ),
    "nothing_labelled": Kind(
        "label map without a labelled pixel", "label maps without a labelled pixel", "kept"
    ),
    "duplicate_picture": Kind(
        "picture with the content of another", "pictures with the content of another", "kept"
    ),
}


def refuse(faults: Sequence[Fault], place: object) -> None:
    """Stops where data cannot be used as they are.

    Raises:
        UserError: Naming the first fault that cannot be passed over, and how many there are.
    """
    bad = [fault for fault in faults if KINDS[fault.kind].then == "refused"]
    if bad:
        more = f" (and {len(bad) - 1} more: pvt data check {place} lists them)" * (len(bad) > 1)
        raise UserError(f"{bad[0].place}: {bad[0].text}{more}")


def note(faults: Iterable[Fault]) -> str:
    """What loading did about the faults it passed over: "2 boxes without area left out, ..."."""
    counts = Counter(fault.kind for fault in faults)
    return ", ".join(f"{KINDS[k].count(number)} {KINDS[k].then}" for k, number in counts.items())
