# Reduces the image of `bentoml containerize`: removes the compiler, git and uv's cache, which only its build needs.
ARG FULL
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
# Whether weights at the documented paths are imported at the start, because none are packed.
ARG IMPORT=false
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
    CMD ["python", "-c", "import os, httpx; httpx.get(f'http://localhost:{os.environ.get(\"PORT\", \"8096\")}/health').raise_for_status()"]
# The shell creates BENTOML_HOME on a fresh volume. `exec` replaces it by the server, which then gets the signals.
ENTRYPOINT ["sh", "-c", "mkdir -p \"$BENTOML_HOME\" && exec bentoml serve \"$BENTO_PATH\""]
