from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from importing.errors import WeightsRefused
from importing.loaders.osnet import build, load
from tests.importing.loaders.pickles import renamed

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


def test_imagenets_classifier_is_refused(state: State, tmp_path: Path) -> None:
    imagenet = state | {"classifier.weight": torch.zeros(1000, 512), "classifier.bias": torch.zeros(1000)}
    with pytest.raises(WeightsRefused, match="ImageNet's 1000 classes: it was not trained to tell people apart"):
        load(put(imagenet, tmp_path))
    people = {name: value for name, value in imagenet.items() if "classifier" not in name}
    assert embed(put(people, tmp_path)).shape == (1, 512)


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(OrderedDict, id="OrderedDict"),
        pytest.param(lambda state: prefixed(state, "module."), id="DataParallel"),
        pytest.param(lambda state: prefixed(state, "_orig_mod.module."), id="compiled"),
        pytest.param(lambda state: {"state_dict": prefixed(state, "model."), "hyper_parameters": {}}, id="Lightning"),
        pytest.param(lambda state: {"state_dict": state, "epoch": 60}, id="state_dict"),
        pytest.param(lambda state: {"model": state, "centres": {"centres": torch.zeros(5, 512)}}, id="model"),
        pytest.param(lambda state: {"net": {"weights": state}}, id="deeper"),
        pytest.param(lambda state: {"state_dict": state, "ema": state}, id="torchreid's entry of two"),
        pytest.param(
            lambda state: {name: value for name, value in state.items() if "classifier" not in name},
            id="no classifier",
        ),
        pytest.param(
            lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
            id="no counters",
        ),
        pytest.param(lambda state: {name: value.double() for name, value in state.items()}, id="float64"),
    ],
)
def test_the_forms_in_which_people_have_them_give_the_same_embedding(
    state: State, tmp_path: Path, wrap: Callable[[State], object]
) -> None:
    plain = embed(put(state, tmp_path))
    assert torch.equal(embed(put(wrap(state), tmp_path)), plain)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(state: State, tmp_path: Path, kind: torch.dtype) -> None:
    plain = embed(put(state, tmp_path))
    half = embed(put({name: value.to(kind) for name, value in state.items()}, tmp_path))
    assert half.dtype == torch.float32
    assert 0 < float((half - plain).abs().max()) < 0.05 * float(plain.abs().max())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[Any], Path]:
    """Made by torchreid's own save_checkpoint, as its engine calls it after an epoch of training."""
    from torchreid.reid.optim import build_lr_scheduler, build_optimizer
    from torchreid.reid.utils import save_checkpoint

    def save(rank1: Any, optimizer: str = "amsgrad", scheduler: str = "multi_step") -> Path:
        model = build(identities=5)
        optimiser = build_optimizer(model, optim=optimizer)
        steps = build_lr_scheduler(optimiser, lr_scheduler=scheduler, stepsize=[1, 2] if "multi" in scheduler else 1)
        model(torch.rand(2, 3, 64, 32)).sum().backward()
        optimiser.step()
        steps.step()
        content = {
            "state_dict": model.state_dict(),
            "epoch": 1,
            "rank1": rank1,
            "optimizer": optimiser.state_dict(),
            "scheduler": steps.state_dict(),
        }
        save_checkpoint(content, str(tmp_path))
        return tmp_path / "model.pth.tar-1"

    return save


@pytest.mark.parametrize(
    ("optimizer", "scheduler"), [("amsgrad", "multi_step"), ("sgd", "single_step"), ("radam", "cosine")]
)
def test_torchreid_s_own_checkpoints_are_taken(checkpoint: Callable[..., Path], optimizer: str, scheduler: str) -> None:
    assert embed(checkpoint(np.float32(0.5), optimizer, scheduler)).shape == (1, 512)


@pytest.mark.parametrize("rank1", [np.float64(0.5), np.float16(0.5), np.int64(1), np.bool_(True), 0.5])
def test_their_rank1_is_a_number_of_whatever_kind(checkpoint: Callable[..., Path], rank1: Any) -> None:
    assert embed(checkpoint(rank1)).shape == (1, 512)


def test_their_numbers_may_be_of_numpy_1_or_2(checkpoint: Callable[..., Path]) -> None:
    file = checkpoint(np.float32(0.5))
    names = (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    renamed(file, [names])
    assert embed(file).shape == (1, 512)
    renamed(file, [names[::-1]])
    assert embed(file).shape == (1, 512)


class Intruder:
    """Runs a command of its own when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.mark}'",)


def test_a_checkpoint_that_would_run_a_command_is_refused_unrun_in_our_words(state: State, tmp_path: Path) -> None:
    mark = tmp_path / "was_here"
    file = put({"state_dict": state, "rank1": Intruder(mark)}, tmp_path)
    with pytest.raises(WeightsRefused) as caught:
        load(file)
    assert not mark.exists()
    assert str(caught.value) == (
        "osnet.pth is not a torch state dict: it names posix.system, which is none of the classes and functions that "
        "it may name. Nothing of it was run. Save the parameters alone: torch.save(model.state_dict(), file)"
    )
    torch.load(file, weights_only=False)  # the trap itself works
    assert mark.exists()


@pytest.mark.parametrize(
    "extra", [np.arange(3), np.str_("a"), re.compile("a"), build], ids=["array", "text", "pattern", "function"]
)
def test_nothing_but_numbers_is_allowed_besides(state: State, tmp_path: Path, extra: object) -> None:
    with pytest.raises(WeightsRefused, match=r"it (names [\w.]+, which is none|holds a value that)") as caught:
        load(put({"state_dict": state, "extra": extra}, tmp_path))
    assert not re.search(r"weights_only|safe_globals|\x1b|\n", str(caught.value))


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
            lambda state: {**state, "fc.0.weight": torch.zeros(256, 128)},
            r"fc\.0\.weight has the shape \(256, 128\), where osnet_x0_25 has \(512, 128\)",
            id="another width",
        ),
        pytest.param(
            lambda state: {**state, "fc.0.weight": torch.zeros(512, 128, dtype=torch.int8)},
            r"fc\.0\.weight is of torch\.int8 .*torch\.float16",
            id="quantized",
        ),
        pytest.param(
            lambda state: {**state, "fc.0.weight": torch.zeros(512, 128).to_sparse()}, "sparse_coo", id="sparse"
        ),
        pytest.param(
            lambda state: {**state, "module.fc.0.weight": state["fc.0.weight"]}, "twice", id="with and without prefix"
        ),
        pytest.param(lambda state: {"model": state, "ema": state}, "several state dicts: model, ema", id="two of them"),
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
    with pytest.raises(WeightsRefused, match=r"^osnet\.pth is not a torch state dict: it is cut short"):
        load(file)
    file.write_text("\x1b[1m404: Not Found")
    with pytest.raises(WeightsRefused, match=r"torch\.save did not write it, as it begins with b'\\x1b\[1m404: Not"):
        load(file)


def script(_: State, file: Path) -> None:
    with pytest.deprecated_call():
        torch.jit.script(torch.nn.Linear(1, 1)).save(file)  # type: ignore[no-untyped-call]


def zipped(_: State, file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("osnet.pth", "state")


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        pytest.param(script, "a TorchScript archive", id="script"),
        pytest.param(lambda state, file: file.write_bytes(pickle.dumps(state)), "is a pickle, but", id="pickle"),
        pytest.param(
            lambda state, file: safetensors.torch.save_file(state, file), "torch.save did not", id="safetensors"
        ),
        pytest.param(zipped, "an archive of something else", id="zipped"),
    ],
)
def test_files_that_other_programs_wrote_are_refused_by_name(
    state: State, tmp_path: Path, write: Callable[[State, Path], object], reason: str
) -> None:
    file = tmp_path / "osnet.pth"
    write(state, file)
    with pytest.raises(WeightsRefused, match=f"^osnet\\.pth is not a torch state dict: .*{reason}"):
        load(file)


def test_a_pickled_model_is_refused_unrun(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused, match="is not a torch state dict"):
        load(put(build(identities=1), tmp_path))


@pytest.mark.weights
def test_the_real_weights_are_accepted(shared: Path) -> None:
    load(shared / "model-zoo" / "osnet-x0-25" / "osnet_x0_25.pth")
