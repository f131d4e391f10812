# One image for every role; the command says which: see compose.yaml and k8s/.
ARG PYTHON_IMAGE=python:3.13.9-slim-bookworm

FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /build
COPY requirements.lock scripts/runtime_lock.py ./
RUN python runtime_lock.py requirements.lock > runtime.lock \
    && python -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --no-cache-dir --require-hashes --requirement runtime.lock

FROM ${PYTHON_IMAGE}
COPY --from=dependencies /opt/venv /opt/venv
WORKDIR /app
COPY addons addons
COPY classifier classifier
COPY dashboard dashboard
COPY workers workers
# Compiled here, for the file system may be read-only later.
RUN python -m compileall -q /app
# The packages are found in /app; all that is ever written goes to /tmp.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    NICEGUI_STORAGE_PATH=/tmp/nicegui
USER 10001:10001
CMD ["python", "-m", "classifier"]
