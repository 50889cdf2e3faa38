# The image of ai-enrichment-light, from a checkout with Docker alone (Docker Engine 23 or newer):
#   docker build -t ai-enrichment-light:0.1.0 .
#   docker build -t ai-enrichment-light:0.1.0-cpu --build-arg VARIANT=cpu --build-arg IMPORT=false --build-context models=AI_MODELS_PATH .
# gpu: torch with its CUDA; weights are imported at the start. cpu: no torch; weights are imported here, and packed.
# `make image` passes the image of `bentoml containerize` as FULL. The stages before `full` then are not built.
ARG VARIANT=gpu
ARG FULL=built

# The build context `models` takes the place of this stage: a folder with model-zoo/. Weights that it lacks are downloaded.
FROM scratch AS models

# The build context is the checkout. For the original deployment's Compose file it is a folder with ai/enrichment-light.
# Dockerfile.dockerignore selects the files.
FROM python:3.11-slim AS source
RUN --mount=type=bind,target=/context \
    checkout=/context/ai/enrichment-light; test -e "$checkout/service.py" || checkout=/context; cp -r "$checkout" /src

FROM python:3.11-slim AS uv
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_PROGRESS=1 VIRTUAL_ENV=/app/.venv PATH=/app/.venv/bin:$PATH
RUN uv venv --python 3.11 /app/.venv
COPY --from=source /src/requirements /src/requirements

FROM uv AS packages-cpu
RUN --mount=type=cache,target=/root/.cache/uv uv pip sync --require-hashes /src/requirements/serve.txt

FROM uv AS packages-gpu
RUN --mount=type=cache,target=/root/.cache/uv uv pip sync --require-hashes /src/requirements/gpu.txt

# The import step needs torch, whatever the variant.
FROM packages-gpu AS bento
ARG VARIANT
WORKDIR /src
ENV BENTOML_DO_NOT_TRACK=True YOLO_CONFIG_DIR=/tmp/ultralytics
# The brackets make a pattern, which may match nothing.
COPY --from=models /model-zo[o]/yolov8n-pos[e] /export/ai_models/model-zoo/yolov8n-pose
COPY --from=models /model-zo[o]/threat-detection-yolov8[n] /export/ai_models/model-zoo/threat-detection-yolov8n
COPY --from=models /model-zo[o]/osnet-x0-2[5] /export/ai_models/model-zoo/osnet-x0-25
COPY --from=models /model-zo[o]/pet-classifie[r] /export/ai_models/model-zoo/pet-classifier
COPY --from=models /model-zo[o]/depth-anything-v2-smal[l] /export/ai_models/model-zoo/depth-anything-v2-small
COPY --from=source /src /src
# 3: some of the models were imported. Their routes serve, and the others' answer 503.
RUN if [ "$VARIANT" = cpu ]; then python -m models.import_models || [ $? = 3 ] \
    || { echo "No model was imported. Set AI_MODELS_PATH to a folder with model-zoo/, or let the build download."; exit 1; } fi \
    && python -m tools.image --variant "$VARIANT" --bento /tmp/bento.tar \
    && mkdir -p /home/bentoml/bento && tar -xf /tmp/bento.tar -C /home/bentoml/bento

FROM packages-${VARIANT} AS built
COPY --from=bento /home/bentoml/bento /home/bentoml/bento

FROM ${FULL} AS full
ARG VARIANT
USER root
# A CPU needs neither torch's program of a packed model nor the original weights for TensorRT.
RUN if [ "$VARIANT" = cpu ]; then cd /home/bentoml/bento/models && rm -rf ./*/*/graph.pt2 ./*/*/weights; fi

FROM python:3.11-slim
# Additional packages, for TensorRT: it can't be locked, and it is too large to be the default.
ARG EXTRA=""
RUN groupadd --gid 1034 bentoml && useradd --uid 1034 --gid 1034 --no-create-home --home-dir /home/bentoml bentoml \
    && install --directory --owner bentoml --group bentoml /home/bentoml /cache /cache/bentoml /cache/tensorrt
COPY --from=full /app/.venv /app/.venv
RUN test -z "$EXTRA" || pip --python /app/.venv/bin/python install --no-cache-dir $EXTRA
COPY --from=full --chown=bentoml:bentoml /home/bentoml/bento /home/bentoml/bento
# Whether weights at the documented paths are imported at the start, because none are packed. Needs torch.
ARG IMPORT=true
# BENTOML_HOME must be writable. With a volume or tmpfs for it and for /tmp, the rest of the image can be read-only.
# BENTOML_CONTAINERIZED is not set: with it, BentoML would end the container instead of restarting a dead runner.
ENV PATH=/app/.venv/bin:$PATH \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    BENTO_PATH=/home/bentoml/bento \
    BENTOML_HOME=/cache/bentoml \
    BENTOML_CONFIG=/home/bentoml/bento/src/configuration.yaml \
    BENTOML_DO_NOT_TRACK=True \
    ENRICHMENT_IMPORT_AT_START=${IMPORT} \
    YOLO_CONFIG_DIR=/tmp/ultralytics
USER bentoml
WORKDIR /home/bentoml/bento/src
EXPOSE 8096
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import os, httpx; httpx.get(f'http://localhost:{os.environ.get(\"PORT\", \"8096\")}/health', trust_env=False).raise_for_status()"]
# The shell creates BENTOML_HOME on a fresh volume. `exec` replaces it by the server, which then gets the signals.
ENTRYPOINT ["sh", "-c", "mkdir -p \"$BENTOML_HOME\" && exec bentoml serve \"$BENTO_PATH\""]
