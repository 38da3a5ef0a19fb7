"""Taking a part of a model out of training."""

from torch import nn


def freeze(model: nn.Module, names: set[str]) -> tuple[nn.Module, ...]:
    """Stops the training of the parameters of these names; they need no gradient from then on.

    Returns:
        The outermost modules all of whose parameters need no gradient: the ones to put into
        evaluation mode, so that no drop path makes noise in features that cannot answer to it.
    """
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    return tuple(frozen_modules(model))


def frozen_modules(module: nn.Module) -> list[nn.Module]:
    needs = [parameter.requires_grad for parameter in module.parameters()]
    if needs and not any(needs):
        return [module]
    return [frozen for child in module.children() for frozen in frozen_modules(child)]


def set_training_mode(model: nn.Module, frozen: tuple[nn.Module, ...]) -> None:
    """Training mode for a model, evaluation mode for its frozen parts."""
    model.train()
    for module in frozen:
        module.eval()
