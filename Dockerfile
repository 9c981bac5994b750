# syntax=docker/dockerfile:1
#
# The Q-RAG service.
#
#   docker build -t qrag:cpu .                 any machine (`cpu` is the last stage, so the default target)
#   docker build -t qrag:gpu --target gpu .    a host with an NVIDIA GPU, driver 580 or newer
#
# Stages: build -> deps-cpu | deps-gpu     third-party packages in a virtual environment, cached until they change
#         build -> wheel                   the server and its client, built once for both images
#         runtime -> gpu | cpu             what ships: the environment, then the wheels as a small layer on top, so that a
#                                          change of sources neither rebuilds nor re-sends gigabytes of CUDA libraries
#
# Every pip command line is in deploy/install.sh, which deploy/check_image_build.sh runs without Docker as well.

FROM python:3.11-slim-bookworm AS base
ENV PATH=/opt/venv/bin:$PATH


FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_CACHE_DIR=/var/cache/pip
RUN python -m venv /opt/venv
WORKDIR /build
COPY pyproject.toml constraints.txt ./
COPY client/pyproject.toml client/
COPY deploy/install.sh deploy/


FROM build AS deps-cpu
# PyPI's torch for x86-64 Linux is the CUDA build; the CPU build, smaller by gigabytes, is on PyTorch's own index.
ARG CPU_TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/var/cache/pip \
    bash deploy/install.sh dependencies cpu "$CPU_TORCH_INDEX"


# CUDA comes from PyPI wheels, so the slim base will do and the host gives the driver alone. Two CUDA versions meet in
# this environment:
#   torch 2.13.0      CUDA 13.0: cuda-toolkit 13.0.3, i.e. nvidia-cublas and others, in site-packages/nvidia/cu13/lib
#   faiss-gpu 1.15.1  CUDA 12: nvidia-{cuda-runtime,cublas,curand}-cu12, in site-packages/nvidia/{cuda_runtime,cublas,curand}/lib
# They live together: the distributions have other names and the files other paths; the sonames differ (libcudart.so.13
# and .12, libcublas.so.13 and .12); and every symbol carries its library's soname as its version, so that neither binds
# to the other's although faiss loads its copies with RTLD_GLOBAL. Both use the driver's one primary context of the device.
# The exception is cuRAND, whose soname is libcurand.so.10 in both: whichever is loaded first serves torch (libfaiss.so
# does not link it). The two export the same symbols and contain their CUDA runtime, so either will do; a process that
# imports torch before faiss gets the one torch was built with.
# A driver runs what older CUDA versions built, so CUDA 13 sets what is needed: driver 580 or newer.
FROM build AS deps-gpu
# Empty: pip's default index.
ARG GPU_TORCH_INDEX=
RUN --mount=type=cache,target=/var/cache/pip \
    bash deploy/install.sh dependencies gpu "$GPU_TORCH_INDEX"


FROM build AS wheel
COPY README.md LICENSE ./
COPY client client/
COPY index index/
COPY service service/
COPY trainer trainer/
RUN --mount=type=cache,target=/var/cache/pip \
    bash deploy/install.sh wheel /dist


FROM base AS runtime
# A fixed uid, so that a bind-mounted data directory can be given to it by number. /tmp as home: what a library caches
# in its home must not need a writable root file system.
RUN groupadd --gid 10001 qrag \
    && useradd --no-log-init --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin qrag \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data
# HF_HUB_OFFLINE: the base model's weights are an installed package, and nothing is downloaded at run time.
# OTEL_SERVICE_NAME: for traces, which are off until a collector is named (docs/operating.md).
ENV QRAG_HOST=0.0.0.0 \
    QRAG_DATA_DIR=/data \
    HF_HUB_OFFLINE=1 \
    OTEL_SERVICE_NAME=qrag \
    PYTHONUNBUFFERED=1
# Empty, so that nothing in the working directory shadows an installed module.
WORKDIR /app
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# urlopen raises, and so exits 1, on anything but a success. No proxies: HTTP_PROXY, which the Docker client may pass into
# containers, is not for the container's own loopback.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ.get('QRAG_PORT', '8000') + '/healthz', timeout=4)"]
CMD ["python", "-m", "service"]
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="qrag" \
      org.opencontainers.image.description="Multi-step retrieval over long documents" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"


FROM runtime AS gpu
# torch compiles the kernel that scores chunks with Triton, which builds a small C module for the device at the first
# start; without a compiler the same is computed block by block, and takes longer.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=deps-gpu /opt/venv /opt/venv
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,source=deploy/install.sh,target=/mnt/install.sh \
    bash /mnt/install.sh package /dist
# Which devices and which driver libraries NVIDIA's container toolkit mounts: CUDA and nvidia-smi, no graphics.
ENV QRAG_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001


FROM runtime AS cpu
COPY --from=deps-cpu /opt/venv /opt/venv
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,source=deploy/install.sh,target=/mnt/install.sh \
    bash /mnt/install.sh package /dist
ENV QRAG_DEVICE=cpu
USER 10001:10001
