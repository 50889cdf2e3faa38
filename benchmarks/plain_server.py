"""How fast is a server written in an afternoon, with FastAPI, threads, and each library used as documented?

usage: PORT=8000 python -m benchmarks.plain_server

It has the same weights (from the model store), JSON requests and answers. Models are loaded once; FastAPI runs each
request on a thread. ultralytics' models are not thread-safe, so the lock of ultralytics' guide serialises them.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel
from torchreid.reid.utils import FeatureExtractor
from transformers import AutoImageProcessor, AutoModelForDepthEstimation, AutoModelForImageClassification
from ultralytics import YOLO  # type: ignore[attr-defined]
from ultralytics.utils import ThreadingLocked

from models import store
from models.catalogue import ModelName
from tasks.depth_estimator import input_shape
from vision.posture import KEYPOINT_NAMES, assess

app = FastAPI()


class Body(BaseModel):
    image_base64: str
    bbox: tuple[float, float, float, float] | None = None

    def image(self) -> Image.Image:
        image = Image.open(io.BytesIO(base64.b64decode(self.image_base64))).convert("RGB")
        return image.crop(self.bbox) if self.bbox else image


def weights(name: ModelName) -> Path:
    stored = store.find(name)
    if stored is None:
        sys.exit(f"{name} is not in the model store: make import")
    return stored.checkpoint


pose_model: Any = YOLO(weights("pose_estimator"))
threat_model: Any = YOLO(weights("threat_detector"))
extractor = FeatureExtractor("osnet_x0_25", str(weights("person_reid")), device="cpu", verbose=False)
pet_processor = AutoImageProcessor.from_pretrained(weights("pet_classifier"))
pet_model = AutoModelForImageClassification.from_pretrained(weights("pet_classifier")).eval()
depth_processor = AutoImageProcessor.from_pretrained(weights("depth_estimator"))
depth_model = AutoModelForDepthEstimation.from_pretrained(weights("depth_estimator")).eval()


@ThreadingLocked()
def predict_pose(image: Image.Image) -> Any:
    return pose_model.predict(image, verbose=False)[0]


@ThreadingLocked()
def predict_threats(image: Image.Image) -> Any:
    return threat_model.predict(image, verbose=False)[0]


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.post("/pose-analyze")
def pose_analyze(body: Body) -> dict[str, Any]:
    image, began = body.image(), time.perf_counter()
    found = predict_pose(image)
    persons = [
        person(box, score, keypoints)
        for box, score, keypoints in zip(
            found.boxes.xyxy.numpy(), found.boxes.conf.numpy(), found.keypoints.data.numpy(), strict=True
        )
    ]
    persons.sort(key=lambda each: -each["confidence"] * each["bbox"]["width"] * each["bbox"]["height"])
    first = persons[0] if persons else {"keypoints": [], "posture": "unknown", "alerts": []}
    return {
        **{key: first[key] for key in ("keypoints", "posture", "alerts")},
        "num_people": len(persons),
        "persons": persons,
        "inference_time_ms": (time.perf_counter() - began) * 1000,
    }


def person(box: Any, score: Any, keypoints: Any) -> dict[str, Any]:
    assessment = assess(keypoints)
    return {
        "keypoints": [
            {"name": name, "x": float(x), "y": float(y), "confidence": float(confidence)}
            for name, (x, y, confidence) in zip(KEYPOINT_NAMES, keypoints, strict=True)
            if confidence >= 0.5
        ],
        "posture": str(assessment.posture),
        "alerts": [str(alert) for alert in assessment.alerts],
        "bbox": bounding_box(box),
        "confidence": float(score),
    }


def bounding_box(box: Any) -> dict[str, float]:
    left, top, right, bottom = map(float, box)
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


@app.post("/threat-detect")
def threat_detect(body: Body) -> dict[str, Any]:
    image, began = body.image(), time.perf_counter()
    found = predict_threats(image)
    threats = [
        {"class": found.names[int(label)], "confidence": float(score), "bbox": bounding_box(box)}
        for box, score, label in zip(found.boxes.xyxy, found.boxes.conf, found.boxes.cls, strict=True)
    ]
    return {
        "threats_detected": threats,
        "is_threat": bool(threats),
        "max_confidence": max((each["confidence"] for each in threats), default=0.0),
        "inference_time_ms": (time.perf_counter() - began) * 1000,
    }


@app.post("/person-reid")
def person_reid(body: Body) -> dict[str, Any]:
    image, began = body.image(), time.perf_counter()
    embedding = torch.nn.functional.normalize(extractor([np.asarray(image)])[0], dim=0)
    return {
        "embedding": embedding.tolist(),
        "embedding_dim": len(embedding),
        "embedding_dimension": len(embedding),
        "inference_time_ms": (time.perf_counter() - began) * 1000,
    }


@app.post("/pet-classify")
def pet_classify(body: Body) -> dict[str, Any]:
    image, began = body.image(), time.perf_counter()
    with torch.no_grad():
        logits = pet_model(**pet_processor(images=image, return_tensors="pt")).logits
    probabilities = logits.softmax(dim=1)[0]
    label = pet_model.config.id2label[int(probabilities.argmax())]
    return {
        "pet_type": label.rstrip("s"),
        "breed": "unknown",
        "confidence": float(probabilities.max()),
        "is_household_pet": bool(probabilities.max() >= 0.9975),
        "inference_time_ms": (time.perf_counter() - began) * 1000,
    }


@app.post("/depth-estimate")
def depth_estimate(body: Body) -> dict[str, Any]:
    image, began = body.image(), time.perf_counter()
    # The same input size as the service; the processor's own size would cost more.
    height, width = input_shape(image.width, image.height, 518)
    size = {"height": height, "width": width}
    inputs = depth_processor(images=image, size=size, keep_aspect_ratio=False, return_tensors="pt")
    with torch.no_grad():
        outputs = depth_model(**inputs)
    target = [(image.height, image.width)]
    depth = depth_processor.post_process_depth_estimation(outputs, target_sizes=target)[0]["predicted_depth"]
    depth = (depth - depth.min()) / (depth.max() - depth.min())
    png = io.BytesIO()
    Image.fromarray((depth * 255).numpy().astype(np.uint8)).save(png, "PNG")
    return {
        "depth_map_base64": base64.b64encode(png.getvalue()).decode(),
        "min_depth": float(depth.min()),
        "max_depth": float(depth.max()),
        "mean_depth": float(depth.mean()),
        "inference_time_ms": (time.perf_counter() - began) * 1000,
    }


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
