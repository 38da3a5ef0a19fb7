"""Models as folders that describe themselves, here or on the Hugging Face hub.

Such a folder holds the weights under their released names (`model.safetensors`), what builds the
model again (`config.json`, which timm reads too), and a model card (`README.md`). The methods are
those of huggingface_hub's mixin; nothing is downloaded but by `from_pretrained` with a hub id.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from huggingface_hub import ModelCard, ModelHubMixin
from torch import Tensor

from ..errors import UserError, one_line
from ..files import write_atomically
from .card import model_card
from .description import CONFIG, decode_size, describe, names_in, read_config

WEIGHTS = "model.safetensors"


class HubModel(
    ModelHubMixin, library_name="pyramidvit", tags=["pvt", "pyramid-vision-transformer"]
):
    """What a model needs to be saved, loaded and shared; `Trunk` gives the rest."""

    sizes: ClassVar[Mapping[str, Any]]  # the family's table
    size_type: ClassVar[type[Any]]  # the class of its rows
    size: Any
    class_names: tuple[str, ...] | None
    pretrained_cfg: dict[str, Any]
    num_features: int
    num_stages: int
    options: Callable[[], dict[str, Any]]

    @property
    def name(self) -> str | None:
        """The published name, such as "pvt_v2_b0"; None for a size of one's own."""
        return next((name for name, size in self.sizes.items() if size == self.size), None)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Writes the model into a folder: weights, config.json and, where none is, a model card.

        Args:
            save_directory: The folder, made where it is missing.
            options: As huggingface_hub's: `push_to_hub`, `repo_id`, and `model_card_kwargs`, such
                as {"license": "mit"}.

        Returns:
            The address of the commit, with `push_to_hub`.

        Raises:
            UserError: A file cannot be written.
        """
        try:
            return super().save_pretrained(save_directory, **options)
        except OSError as error:
            raise UserError(
                f"cannot write {save_directory}: {error.strerror or one_line(error)}"
            ) from error

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads what `save_pretrained` writes, in one commit.

        Args:
            repo_id: owner/name; made where it is missing.
            options: As huggingface_hub's: `private`, `token`, `branch`, `create_pr`,
                `commit_message`, `model_card_kwargs`.

        Returns:
            The address of the commit.

        Raises:
            UserError: The hub cannot be reached, or refuses.
        """
        card = {"repo_id": repo_id, **(options.pop("model_card_kwargs", None) or {})}
        try:
            return str(super().push_to_hub(repo_id, model_card_kwargs=card, **options))
        except (UserError, TypeError):
            raise
        except Exception as error:  # of the library, its HTTP client, its transfer protocol
            kind = type(error).__name__
            raise UserError(
                f"cannot push to {repo_id} ({kind}: {one_line(error)}); `hf auth login` or HF_TOKEN"
                " gives the right to write"
            ) from error

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **changes: Any,
    ) -> Self:
        """Builds the model that a folder describes, in evaluation mode.

        Args:
            pretrained_model_name_or_path: A folder, or the id of a hub repository (owner/name).
            force_download: Fetches again what is in the cache.
            token: For private repositories; None takes the one of `hf auth login`.
            cache_dir: Where downloads lie.
            local_files_only: Looks into the cache only.
            revision: Branch, tag or commit of the repository.
            changes: Options of the class in place of the saved ones. With another `num_classes`
                the head starts fresh.

        Raises:
            UserError: No such folder or repository, a file missing or damaged, another class's
                model in it, or weights that do not fit.
        """
        from ..weights.checkpoint import read_checkpoint
        from ..weights.load import load_weights

        source = pretrained_model_name_or_path
        folder = Path(source)
        if not folder.is_dir():
            if str(source).count("/") != 1 or folder.is_file():
                raise UserError(f"{source} is neither a folder nor a hub repository (owner/name)")
            folder = download(
                str(source),
                force_download=force_download,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                revision=revision,
            )
        config = read_config(folder, cls.__name__)
        checkpoint = read_checkpoint(folder / WEIGHTS)
        model = build(cls, config, changes, folder, checkpoint.state)
        saved = config["options"].get("num_classes")
        new_head = None if changes.get("num_classes", saved) != saved else False
        load_weights(model, checkpoint, new_head=new_head)
        names = names_in(config)
        if new_head is False and names is not None and len(names) == saved:
            model.class_names = names
        restored: Self = model.eval()
        return restored

    def generate_model_card(self, *args: Any, **card: Any) -> ModelCard:
        """The model card; `card` may hold `license`, `repo_id` and further lines of its header."""
        return ModelCard(model_card(self, **card), ignore_metadata_errors=True)

    def _save_pretrained(self, save_directory: Path) -> None:
        from ..weights.checkpoint import write_safetensors

        state = self.state_dict()  # type: ignore[attr-defined]
        write_safetensors(save_directory / WEIGHTS, state, {"format": "pt"})
        text = json.dumps(describe(self), indent=2, ensure_ascii=False)
        write_atomically(save_directory / CONFIG, text + "\n")


def check_claim(
    size: Any, options: dict[str, Any], state: Mapping[str, Tensor], folder: Path
) -> None:
    """Refuses a configuration of other sizes than its weights before a model of them is built.

    Else a few bytes of text could ask for more memory than there is.

    Raises:
        UserError: They disagree.
    """
    from ..weights.recognise import find_pvt

    found = find_pvt(state, str(folder / WEIGHTS))
    pairs: list[tuple[str, Any, Any]] = [
        (name, getattr(size, name)[: len(numbers)], numbers)
        for name, numbers in zip(("dims", "depths", "mlp_ratios"), found.columns, strict=False)
    ]
    for name, number in (("num_classes", found.num_classes or 0), ("in_chans", found.in_chans)):
        if name in options:
            pairs.append((name, options[name], number))
    for name, said, there in pairs:
        if said != there:
            raise UserError(f"{folder}: {CONFIG} says {name} {said}, {WEIGHTS} has {there}")


def build(
    cls: type[Any],
    config: dict[str, Any],
    changes: dict[str, Any],
    folder: Path,
    state: Mapping[str, Tensor],
) -> Any:
    """The model that a configuration describes, with fresh weights; `state` are the saved ones."""
    options = config["options"]
    unknown = sorted(set(changes) - set(options))
    if unknown:
        raise UserError(f"{cls.__name__} has no option {unknown[0]}; it has {', '.join(options)}")
    try:
        size = decode_size(cls.size_type, config["size"])
        check_claim(size, options, state, folder)
        model = cls(size, **{**options, **changes})
        for key, value in config["pretrained_cfg"].items():
            if key in ("input_size", "interpolation", "crop_pct", "mean", "std"):
                model.pretrained_cfg[key] = tuple(value) if isinstance(value, list) else value
        return model
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder / CONFIG} does not describe a {cls.__name__}: {one_line(error)}"
        ) from error


def download(repo_id: str, **options: Any) -> Path:
    """The folder in huggingface_hub's cache with a repository's weights and configuration.

    Raises:
        UserError: No folder and no repository of that name, or the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    from ..weights.hub import errors_in_one_line

    with errors_in_one_line(repo_id, options["revision"]):
        hf_hub_download(repo_id, CONFIG, **options)
        return Path(hf_hub_download(repo_id, WEIGHTS, **options)).parent
