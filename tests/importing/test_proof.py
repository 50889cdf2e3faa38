from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from importing.convert import write_graph, write_program
from importing.errors import GraphInexact
from importing.loaders.network import ImageInput, Multiples, Network, Normalise, largest
from importing.proof import prove
from models.store import GRAPH, PROGRAM

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


class Edges(nn.Module):
    """(B, H, W, 3) → (B, 4, H / 2, W / 2): one convolution, or one whose output is of a size that tracing freezes."""

    def __init__(self, std: tuple[float, ...] = STD, *, frozen: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.normalise, self.convolution, self.frozen = Normalise(MEAN, std), nn.Conv2d(3, 4, 2, stride=2), frozen

    def forward(self, image: Tensor) -> Tensor:
        edges: Tensor = self.convolution(self.normalise(image))
        if self.frozen:
            edges = nn.functional.interpolate(edges, (int(image.shape[1]) // 2, int(image.shape[2]) // 2))
        return edges


def network(graph: nn.Module) -> Network:
    return Network(
        graph=graph,
        original=lambda image: (Edges()(image),),
        image=ImageInput(Multiples(8, minimum=8, maximum=128)),
        outputs=("edges",),
        labels=(),
        probes=((64, 48), (24, 64)),
        compare=lambda expected, actual: {"edge": largest(expected[0], actual[0])},
        limits={"edge": 1e-4},
    )


def export(folder: Path, program: nn.Module, graph: nn.Module) -> Network:
    write_program(network(program), folder / PROGRAM)
    write_graph(network(graph), folder / GRAPH)
    return network(graph)


def test_equal_graphs_pass_and_the_reached_difference_is_returned(tmp_path: Path) -> None:
    reached = prove(export(tmp_path, Edges(), Edges()), tmp_path)
    assert set(reached) == {"edge"}
    assert 0 <= reached["edge"] < 1e-4


def test_a_graph_with_other_normalisation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphInexact, match=r"graph\.onnx differs from the original: edge by .*, allowed is 0\.0001"):
        prove(export(tmp_path, Edges(), Edges(std=(0.2, 0.3, 0.41))), tmp_path)


def test_a_program_with_other_normalisation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphInexact, match=r"graph\.pt2 differs from the original"):
        prove(export(tmp_path, Edges(std=(0.2, 0.3, 0.41)), Edges()), tmp_path)


def test_a_size_that_tracing_has_frozen_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(GraphInexact, match=r"graph\.onnx gives outputs of shape .* where the original gives"):
        prove(export(tmp_path, Edges(), Edges(frozen=True)), tmp_path)


def test_not_a_number_is_over_every_limit(tmp_path: Path) -> None:
    broken = Edges()
    nn.init.constant_(broken.convolution.weight, float("nan"))
    with pytest.raises(GraphInexact, match="edge by nan"):
        prove(export(tmp_path, broken, broken), tmp_path)


def test_the_program_is_read_without_unpickling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(network(Edges()), tmp_path / PROGRAM)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("torch.load was called")

    monkeypatch.setattr(torch, "load", forbidden)
    program = torch.export.load(tmp_path / PROGRAM).module()
    assert program(torch.zeros(5, 8, 128, 3, dtype=torch.uint8)).shape == (5, 4, 4, 64)
