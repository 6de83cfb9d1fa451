# The worker as a container. docs/connecting.md says how it is built, run and connected.
#
#   docker build --tag ems-worker .
#   docker build --tag ems-platform --build-arg EXTRAS=local .     # with the local orchestrator and its simulator
#
# BASE_IMAGE is any image with Python 3.11 or newer and its venv module (deploy/base-image makes one from Debian's packages).
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
# `design` has what sampled plans need: without it they are refused. Each choice has its exact versions in deploy/lock.
ARG EXTRAS=design
WORKDIR /src
COPY . .
# How pip reaches its index differs from machine to machine and may hold passwords: it comes as secrets, which are gone
# after this step (deploy/build-image passes this machine's). What stays is an environment without pip.
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
# A new volume takes over the owner of what it covers.
COPY --from=build --chown=10001:10001 /opt/data /data
ENV PATH="/opt/venv/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    EMS_DATA_DIR=/data \
    EMS_HTTP=0.0.0.0:8080
WORKDIR /data
# Numeric, so that Kubernetes can see that it isn't root.
USER 10001:10001
VOLUME ["/data"]
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["ems-worker", "health"]
ENTRYPOINT ["ems-worker"]
CMD ["run"]
