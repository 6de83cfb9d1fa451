# The worker's image. docs/connecting.md describes how to build, run and connect it.
#
#   docker build --tag ems-worker .
#   docker build --tag ems-platform --build-arg EXTRAS=local .     # with the local orchestrator and its simulator
#
# BASE_IMAGE is any image with Python 3.11 or newer and its venv module. deploy/base-image builds one from Debian's
# packages.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
# `design` contains what sampled plans need; without it, the worker rejects them. deploy/lock pins the exact versions
# of each choice.
ARG EXTRAS=design
WORKDIR /src
COPY . .
# How pip reaches its index depends on the machine and may include passwords, so it is passed as secrets, which exist
# only during this step (deploy/build-image passes those of this machine). The resulting environment has no pip.
RUN --mount=type=secret,id=pip_config,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle,target=/run/secrets/ca_bundle \
    --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --requirement deploy/lock/build.txt \
    && /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
    && python3 -m venv --without-pip /opt/venv \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --require-hashes --requirement "deploy/lock/${EXTRAS}.txt" \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-deps /opt/wheels/*.whl \
    && mkdir /opt/data

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="ems-worker" \
      org.opencontainers.image.description="Experiment management for simulations: the worker" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/venv /opt/venv
# A new volume inherits the owner of the directory at its mount point.
COPY --from=build --chown=10001:10001 /opt/data /data
ENV PATH="/opt/venv/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    EMS_DATA_DIR=/data \
    EMS_HTTP=0.0.0.0:8080
WORKDIR /data
# The user is numeric so that Kubernetes can check that it isn't root.
USER 10001:10001
VOLUME ["/data"]
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["ems-worker", "health"]
ENTRYPOINT ["ems-worker"]
CMD ["run"]
