"""How fast is an expert's server, with no library between HTTP and OpenVINO?

usage: PORT=8000 python -m benchmarks.lean_server

It has the same graphs (from the model store), JSON requests and answers. A thread reads, computes and answers a
request; there is one thread more than cores. Each route has static graphs for each shape: a single image gets all
cores, concurrent images get one stream each.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from asyncio import get_running_loop
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import pybase64
import simplejpeg
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from models import store
from models.catalogue import CATALOGUE, ModelName
from models.store import StoredModel
from runners import engine_choice
from settings import get_settings
from tasks import TASKS
from tasks.picture import Picture
from tasks.task import Answer, Options
from vision.decoding import OWN_FILES, open_image

SETTINGS = get_settings()
OURS = {name: task(SETTINGS.models[name]) for name, task in TASKS.items()}
CORES = len(os.sched_getaffinity(0))
Requests = SimpleQueue[Any]


class Model:
    """A graph, compiled twice for each shape: with one stream, and with a stream per core."""

    def __init__(self, stored: StoredModel) -> None:
        self.stored = stored
        self._lock = threading.Lock()
        self._busy = 0
        self._compiled: dict[tuple[int, ...], tuple[Requests, Requests]] = {}

    def infer(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """Run one image (h, w, 3) uint8; return the graph's outputs."""
        with self._lock:
            if image.shape not in self._compiled:
                self._compiled[image.shape] = self._compile(image.shape, 1), self._compile(image.shape, CORES)
            wide, narrow = self._compiled[image.shape]
            self._busy += 1
            requests = wide if self._busy == 1 else narrow
        request = requests.get()
        try:
            results = request.infer([np.ascontiguousarray(image)[None]], share_inputs=True, share_outputs=True)
            return tuple(np.array(results[index][0]) for index in range(len(results)))
        finally:
            requests.put(request)
            with self._lock:
                self._busy -= 1

    def _compile(self, shape: tuple[int, ...], streams: int) -> Requests:
        import openvino

        core = openvino.Core()
        core.set_property({"CACHE_DIR": store.cache_folder("lean-server", self.stored)})
        graph = core.read_model(self.stored.graph)
        graph.reshape({graph.inputs[0]: [1, *shape]})
        config = {"INFERENCE_PRECISION_HINT": openvino.Type.f32, "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": CORES}
        compiled = core.compile_model(graph, "CPU", config)
        requests: Requests = SimpleQueue()
        for _ in range(streams):
            requests.put(compiled.create_infer_request())
        return requests


def find(name: ModelName) -> Model:
    stored = store.find(name)
    if stored is None:
        sys.exit(f"{name} is not in the model store: make import")
    return Model(stored)


def work(name: ModelName, body: bytes) -> bytes:
    data = pybase64.b64decode(json.loads(body)["image_base64"], validate=True)
    image = simplejpeg.decode_jpeg(data) if data[:2] == b"\xff\xd8" else open_image(data, OWN_FILES).decode()
    began = time.perf_counter()
    card, task = MODELS[name].stored.card, OURS[name]
    prepared = task.prepare(Picture.of(image, None), Options(), card.input)
    results = [task.interpret(MODELS[name].infer(item["image"]), item, card) for item in prepared.items]
    answer: Answer = task.answer(results, prepared)
    answer.inference_time_ms = round((time.perf_counter() - began) * 1000, 2)
    return answer.model_dump_json(exclude_unset=True).encode()


def route(name: ModelName) -> Route:
    async def answer(request: Request) -> Response:
        body = await get_running_loop().run_in_executor(POOL, work, name, await request.body())
        return Response(body, media_type="application/json")

    return Route(CATALOGUE[name].route, answer, methods=["POST"])


def health(_: Request) -> Response:
    return JSONResponse({"status": "healthy"})


MODELS = {name: find(name) for name in CATALOGUE}
POOL = ThreadPoolExecutor(CORES + 1)
app = Starlette(routes=[Route("/health", health), *(route(name) for name in CATALOGUE)])

if __name__ == "__main__":
    engine_choice.start(SETTINGS, None)
    for name, model in MODELS.items():
        size = OURS[name].warm_up_sizes(model.stored.card.input)[0]
        model.infer(np.zeros((*size, 3), np.uint8))
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
