"""From logits to predictions."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...structures import Batch, Classes, ClassPrediction, ClassTarget, MixedTarget


def postprocess(logits: Tensor, batch: Batch[Any]) -> tuple[ClassPrediction, ...]:
    """Softmax over the classes; one prediction an image of the batch."""
    return tuple(ClassPrediction(scores=row) for row in logits.float().softmax(1).cpu())


def describe(prediction: ClassPrediction, classes: Classes, most: int = 5) -> dict[str, Any]:
    """The best classes as a JSON record: name and id of the first, then the list."""
    scores, labels = prediction.scores.topk(min(most, len(classes)))
    top = [
        {"name": classes.names[k], "id": classes.ids[k], "score": round(s, 6)}
        for s, k in zip(scores.tolist(), labels.tolist(), strict=True)
    ]
    return {"name": top[0]["name"], "id": top[0]["id"], "score": top[0]["score"], "top": top}


def summarise(record: dict[str, Any]) -> str:
    """The three best classes of a record in one line."""
    return "   ".join(f"{x['name']} {x['score']:.2f}" for x in record["top"][:3])


def headline(figures: Mapping[str, float]) -> str:
    """The losses that are there, and the accuracy."""
    loss = f"validation loss {figures['loss']:.3f}  " if "loss" in figures else ""
    return f"{loss}top1 {figures['top1']:.2f} %"


def caption(
    prediction: ClassPrediction, classes: Classes, target: ClassTarget | None
) -> tuple[str, bool | None]:
    """One line for a page of pictures, and whether the best class is the true one."""
    best = int(prediction.scores.argmax())
    line = f"{classes.names[best]} {float(prediction.scores[best]):.2f}"
    if target is None:
        return line, None
    truth = target.label
    return (line, True) if truth == best else (f"{line}, is {classes.names[truth]}", False)


def describe_target(target: MixedTarget, classes: Classes) -> str:
    """The class of a training image, or of a mixed one both: "cat 0.7 + dog 0.3"."""
    weights, labels = target.weights.topk(2)
    (first, second), (a, b) = weights.tolist(), (classes.names[int(k)] for k in labels)
    return a if second < 0.1 else f"{a} {first:.1f} + {b} {second:.1f}"
