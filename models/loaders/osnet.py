from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from models.errors import WeightsRefused
from models.loaders.network import ImageInput, Network, Normalise, largest, refusing

with warnings.catch_warnings():  # torchreid misses a Cython module that only its training evaluation uses
    warnings.simplefilter("ignore")
    import torchreid
    from torchreid.reid.data.transforms import build_transforms

ARCHITECTURE = "osnet_x0_25"
HEIGHT, WIDTH = 256, 128
# torchreid normalises as torchvision's ImageNet models do (torchreid/reid/data/transforms.py, build_transforms).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LIMITS = {"embedding": 1e-3, "cosine_distance": 1e-5}


def load(path: Path) -> Network:
    """Load an OSNet x0.25 state dict with torchreid.

    The graph's one output `embedding` is (B, 512) float32, not normalised to length one.

    Every parameter must be there and none besides; only the number of identities in the classifier, which the embedding
    does not pass through, is taken from the file. Raises WeightsRefused otherwise.
    """
    with refusing(path, "a torch state dict"):
        state = torch.load(path, map_location="cpu", weights_only=True)
    state = _parameters(state)
    identities = state["classifier.weight"].shape[0] if "classifier.weight" in state else 1
    model = build(identities)
    _check_keys(model, state)
    with refusing(path, f"a state dict of {ARCHITECTURE}"):
        model.load_state_dict(state, strict=True)
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
    """The untrained architecture, its classifier sized for a number of identities."""
    model: nn.Module = torchreid.models.build_model(ARCHITECTURE, num_classes=identities, pretrained=False)
    return model


def _parameters(state: object) -> dict[str, Tensor]:
    """The parameters by name, from a bare state dict or a torchreid checkpoint, without DataParallel's prefix."""
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsRefused("it holds no state dict: a mapping from parameter names to tensors is needed")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _check_keys(model: nn.Module, state: dict[str, Tensor]) -> None:
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    foreign = sorted(state.keys() - wanted.keys())
    if missing or foreign:
        raise WeightsRefused(
            f"it is not a whole {ARCHITECTURE}: {len(missing)} parameters are missing {missing[:3]}, "
            f"{len(foreign)} are foreign to it {foreign[:3]}"
        )


def _transformed(image: Tensor) -> Tensor:
    """What torchreid's own test transform makes of images that have the network's size already: (B, 3, 256, 128)."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the list of its steps
        _, transform = build_transforms(HEIGHT, WIDTH)
    return torch.stack([transform(Image.fromarray(np.asarray(one))) for one in image])


def _compare(expected: Tensor, actual: Tensor) -> dict[str, float]:
    cosine = nn.functional.cosine_similarity(expected.double(), actual.double(), dim=1)
    return {"embedding": largest(expected, actual), "cosine_distance": float((1 - cosine).max())}
