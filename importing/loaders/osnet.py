"""Loads OSNet x0.25 with torchreid."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from importing.errors import WeightsRefused
from importing.loaders.checkpoint import opening
from importing.loaders.network import ImageInput, Network, Normalise, largest

with warnings.catch_warnings():  # torchreid warns of a missing Cython module that only training uses
    warnings.simplefilter("ignore")
    import torchreid
    from torchreid.reid.data.transforms import build_transforms

ARCHITECTURE = "osnet_x0_25"
HEIGHT, WIDTH = 256, 128
# ImageNet's, as in torchreid/reid/data/transforms.py, build_transforms.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LIMITS = {"embedding": 1e-3, "cosine_distance": 1e-5}

State = dict[str, Tensor]

_TORCHREID: Final = "state_dict"  # the entry that torchreid's own load_pretrained_weights reads
_EMBEDDING: Final = {"conv1.conv.weight", "fc.0.weight"}  # either identifies the architecture's state dict
_CLASSIFIER: Final = {"classifier.weight", "classifier.bias"}
_COUNTER: Final = ".num_batches_tracked"  # only used in training
# Prefixes of parameter names by DataParallel, torch.compile and Lightning.
_IMAGENET: Final = 1000  # classes
_WRAPPERS: Final = re.compile(r"^(?:module\.|_orig_mod\.|model\.)+")


def load(path: Path) -> Network:
    """Load an OSNet x0.25 state dict with torchreid.

    The graph's one output `embedding` is (B, 512) float32, not normalised.

    The file must hold exactly the architecture's parameters, in floating point of any width, alone or in a checkpoint.
    Only the classifier may be of any size or missing, as the embedding does not use it. Raises WeightsRefused
    otherwise.
    """
    with opening(path, "a torch state dict", "Save the parameters alone: torch.save(model.state_dict(), file)"):
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    state = _state(content)
    model = build(state["classifier.weight"].shape[0] if _is_matrix(state.get("classifier.weight")) else 1)
    _check(model, state)
    if _is_matrix(state.get("classifier.weight")) and len(state["classifier.weight"]) == _IMAGENET:
        raise WeightsRefused(
            "its classifier has ImageNet's 1000 classes: it was not trained to tell people apart. If these are 1000 "
            "people, save it without classifier.weight and classifier.bias"
        )
    model.load_state_dict({**model.state_dict(), **state}, strict=True)
    model.eval()
    return Network(
        graph=nn.Sequential(Normalise(MEAN, STD), model),
        original=lambda image: (model(_transformed(image)),),
        image=ImageInput((HEIGHT, WIDTH)),
        outputs=("embedding",),
        labels=(),
        probes=((HEIGHT, WIDTH),),
        compare=lambda expected, actual: _compare(expected[0], actual[0]),
        limits=LIMITS,
    )


def build(identities: int) -> nn.Module:
    """Return the untrained architecture, with a classifier for this number of identities."""
    model: nn.Module = torchreid.models.build_model(ARCHITECTURE, num_classes=identities, pretrained=False)
    return model


def write_standin(file: Path) -> None:
    """Write an untrained state dict."""
    torch.save(build(identities=1).state_dict(), file)


def _state(content: object) -> State:
    """Return the only state dict of the architecture in a file, at any depth, without the wrappers' prefixes."""
    found = {name: _unwrapped(state) for name, state in _states(content)}
    alike = {name: state for name, state in found.items() if _EMBEDDING & state.keys()}
    if len(alike) > 1:
        alike = {name: state for name, state in alike.items() if name == _TORCHREID} or alike
    if len(alike) > 1:
        raise WeightsRefused(
            f"it holds several state dicts: {', '.join(alike)}. Save the one that is meant alone, "
            f"or name it {_TORCHREID!r}"
        )
    if alike or "" in found:
        return next(iter((alike or found).values()))
    held = sorted(map(str, content))[:5] if isinstance(content, Mapping) else type(content).__name__
    raise WeightsRefused(f"it holds no state dict but {held}: a mapping from parameter names to tensors is needed")


def _states(content: object, name: str = "") -> Iterator[tuple[str, State]]:
    """Yield every mapping from names to tensors in a file's content, with the path of keys that leads to it."""
    if not isinstance(content, Mapping):
        return
    if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        yield name, dict(content)
    for key, value in content.items():
        yield from _states(value, f"{name}.{key}" if name else str(key))


def _unwrapped(state: State) -> State:
    bare: State = {}
    for name, value in state.items():
        inner = _WRAPPERS.sub("", name)
        if inner in bare:
            raise WeightsRefused(f"it holds the parameter {inner} twice, with and without a wrapper's prefix")
        bare[inner] = value
    return bare


def _check(model: nn.Module, state: State) -> None:
    wanted = model.state_dict()
    absent = {name for name in wanted.keys() - state.keys() if not name.endswith(_COUNTER)}
    if absent == _CLASSIFIER:
        absent = set()
    missing, foreign = sorted(absent), sorted(state.keys() - wanted.keys())
    if missing or foreign:
        raise WeightsRefused(
            f"it is not a whole {ARCHITECTURE}: {len(missing)} parameters are missing {missing[:3]}, "
            f"{len(foreign)} are foreign to it {foreign[:3]}"
        )
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            raise WeightsRefused(
                f"its parameter {name} has the shape {tuple(value.shape)}, where {ARCHITECTURE} has "
                f"{tuple(wanted[name].shape)}: is it an OSNet of another width?"
            )
        usable = value.layout is torch.strided and not value.is_meta
        if not usable or (wanted[name].is_floating_point() and not value.is_floating_point()):
            raise WeightsRefused(
                f"its parameter {name} is of {value.dtype} on {value.device} ({value.layout}); a dense one of floating "
                "point is needed, such as torch.float32 or torch.float16"
            )


def _is_matrix(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.dim() == 2


def _transformed(image: Tensor) -> Tensor:
    """Apply torchreid's own test transform to images of the network's size. Return float32 (B, 3, 256, 128)."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the list of its steps
        _, transform = build_transforms(HEIGHT, WIDTH)
    return torch.stack([transform(Image.fromarray(np.asarray(one))) for one in image])


def _compare(expected: Tensor, actual: Tensor) -> dict[str, float]:
    cosine = nn.functional.cosine_similarity(expected.double(), actual.double(), dim=1)
    return {"embedding": largest(expected, actual), "cosine_distance": float((1 - cosine).max())}
