"""What can be wrong with annotations, and what loading does about it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..errors import UserError

Consequence = Literal["refused", "left out", "clipped", "skipped", "kept"]


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
        says: Its heading, of several.
        then: What training and evaluation do: refuse all data, leave the record out, clip the box,
            skip the picture and name it, or keep the record as it is.
    """

    says: str
    then: Consequence


KINDS = {
    "bad_record": Kind("records that cannot be understood", "refused"),
    "unknown_class": Kind("objects of an unknown class", "refused"),
    "duplicate_class": Kind("classes with an id that is taken", "refused"),
    "duplicate_image": Kind("images with an id that is taken", "refused"),
    "path_outside": Kind("file names that lead out of the data's folder", "refused"),
    "no_pictures": Kind("annotation files whose pictures are nowhere", "refused"),
    "no_annotation": Kind("listed images without an annotation file", "left out"),
    "unknown_image": Kind("objects of an unknown image", "left out"),
    "not_finite": Kind("boxes with numbers that are not finite", "left out"),
    "negative_size": Kind("boxes of negative size", "left out"),
    "zero_area": Kind("boxes without area", "left out"),
    "far_outside": Kind("boxes wholly outside their image", "left out"),
    "box_outside": Kind("boxes that reach out of their image", "clipped"),
    "duplicate_id": Kind("objects with an id that is taken", "kept"),
    "missing_file": Kind("missing pictures", "skipped"),
    "unreadable": Kind("unreadable pictures", "skipped"),
    "size_differs": Kind("pictures of another size than their annotation says", "skipped"),
    "bad_mask": Kind("masks that are damaged or of another size", "skipped"),
    "empty_class": Kind("class folders without pictures", "refused"),
    "duplicate_picture": Kind("pictures with the content of another", "kept"),
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
    return ", ".join(f"{counts[kind]} {KINDS[kind].says} {KINDS[kind].then}" for kind in counts)
