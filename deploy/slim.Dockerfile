# The image that `bentoml containerize` makes, without what only its making needs: a compiler, git, uv's cache (0.6 GB).
ARG FULL
FROM ${FULL} AS full
ARG VARIANT
USER root
# torch's form of a packed model, and the original weights that TensorRT starts from: two thirds, and nothing to a CPU.
RUN if [ "$VARIANT" = cpu ]; then cd /home/bentoml/bento/models && rm -rf ./*/*/graph.pt2 ./*/*/weights; fi

FROM python:3.11-slim
# Packages beside the locked ones: TensorRT can't be locked, and not everybody wants its gigabytes.
ARG EXTRA=""
RUN groupadd --gid 1034 bentoml && useradd --uid 1034 --gid 1034 --no-create-home --home-dir /home/bentoml bentoml \
    && install --directory --owner bentoml --group bentoml /home/bentoml /cache /cache/bentoml /cache/tensorrt
COPY --from=full /app/.venv /app/.venv
RUN test -z "$EXTRA" || pip --python /app/.venv/bin/python install --no-cache-dir $EXTRA
COPY --from=full --chown=bentoml:bentoml /home/bentoml/bento /home/bentoml/bento
# BENTOML_HOME must be writable: with a volume or a tmpfs there and over /tmp the rest of the image can be read-only.
# Whether weights at the documented paths are imported at the start: where none are packed.
ARG IMPORT=false
# BENTOML_CONTAINERIZED is left out: with it BentoML would not start a dead runner anew and end the whole container.
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
    CMD ["python", "-c", "import os, httpx; httpx.get(f'http://localhost:{os.environ.get(\"PORT\", \"8096\")}/health').raise_for_status()"]
# The shell makes BENTOML_HOME on a fresh volume and then gives its place, and the signals, to the server.
ENTRYPOINT ["sh", "-c", "mkdir -p \"$BENTOML_HOME\" && exec bentoml serve \"$BENTO_PATH\""]
