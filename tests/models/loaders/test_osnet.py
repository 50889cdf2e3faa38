from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.errors import WeightsRefused
from models.loaders.osnet import build, load

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(1)
    return dict(build(identities=5).state_dict())


def put(state: object, folder: Path) -> Path:
    torch.save(state, folder / "osnet.pth")
    return folder / "osnet.pth"


def embed(file: Path) -> Tensor:
    image = torch.arange(256 * 128 * 3).reshape(1, 256, 128, 3).to(torch.uint8)
    with torch.inference_mode():
        embedding: Tensor = load(file).graph(image)
    return embedding


def without(key: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if name != key}


def test_the_classifier_s_size_is_taken_from_the_file(state: State, tmp_path: Path) -> None:
    assert embed(put(state, tmp_path)).shape == (1, 512)


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda state: {f"module.{key}": value for key, value in state.items()}, id="DataParallel"),
        pytest.param(lambda state: {"state_dict": state, "epoch": 60}, id="torchreid checkpoint"),
    ],
)
def test_the_forms_torchreid_writes_give_the_same_embedding(
    state: State, tmp_path: Path, wrap: Callable[[State], object]
) -> None:
    plain = embed(put(state, tmp_path))
    assert torch.equal(embed(put(wrap(state), tmp_path)), plain)


# Each of these loads without a word under strict=False, and gives an embedder with random parts.
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(
            without("conv3.0.conv2a.conv2.weight"), r"1 parameters are missing \['conv3", id="one convolution missing"
        ),
        pytest.param(without("fc.0.weight"), r"1 parameters are missing \['fc\.0\.weight'\]", id="embedding missing"),
        pytest.param(without("classifier.weight"), "1 parameters are missing", id="half a classifier"),
        pytest.param(lambda state: {**state, "head.weight": torch.zeros(1)}, "1 are foreign", id="one too many"),
        pytest.param(
            lambda state: {f"backbone.{key}": value for key, value in state.items()}, "are foreign", id="other prefix"
        ),
        pytest.param(
            lambda state: {**state, "fc.0.weight": torch.zeros(256, 128)}, "size mismatch", id="another width"
        ),
    ],
)
def test_a_state_dict_that_is_not_wholly_the_architecture_is_refused(
    state: State, tmp_path: Path, change: Callable[[State], State], reason: str
) -> None:
    with pytest.raises(WeightsRefused, match=reason):
        load(put(change(state), tmp_path))


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, torch.zeros(3)], ids=["list", "empty", "number", "one"])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(WeightsRefused, match="it holds no state dict"):
        load(put(content, tmp_path))


def test_text_and_truncated_files_are_refused(state: State, tmp_path: Path) -> None:
    file = put(state, tmp_path)
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(WeightsRefused, match=r"^osnet\.pth is not a torch state dict: \S"):
        load(file)
    file.write_text("404: Not Found")
    with pytest.raises(WeightsRefused, match=r"^osnet\.pth is not a torch state dict: \S"):
        load(file)


def test_a_pickled_model_is_refused_unrun(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused, match="is not a torch state dict"):
        load(put(build(identities=1), tmp_path))


@pytest.mark.weights
def test_the_real_weights_are_accepted(shared: Path) -> None:
    load(shared / "model-zoo" / "osnet-x0-25" / "osnet_x0_25.pth")
