# docker build --target cpu -t rs-embed .      (or --target cuda; run that one with --gpus all)
# docker run --rm -v "$PWD:/work" rs-embed embed mosaiks_rcf --backend sample --out /work/vector.npz
FROM python:3.12-slim AS build
RUN pip install --no-cache-dir uv
WORKDIR /src
COPY pyproject.toml README.md LICENSE THIRD_PARTY.md constraints.txt ./
COPY src src
RUN uv build --wheel --out-dir /dist

FROM python:3.12-slim AS base
RUN pip install --no-cache-dir uv && useradd --create-home user
COPY --from=build /dist /dist
COPY constraints.txt /dist/

FROM base AS cuda
# The registry's torch brings its own CUDA libraries; the host needs the driver only.
RUN uv pip install --system --no-cache "$(echo /dist/*.whl)[plot,export,stac]" --constraint /dist/constraints.txt
USER user
WORKDIR /work
ENTRYPOINT ["rs-embed"]

FROM base AS cpu
# TORCH_INDEX names an index of torch's CPU wheels, which are 10 times smaller; without it the CUDA build is installed.
ARG TORCH_INDEX=""
RUN if [ -n "$TORCH_INDEX" ]; then uv pip install --system --no-cache torch --index-url "$TORCH_INDEX"; fi \
    && uv pip install --system --no-cache "$(echo /dist/*.whl)[plot,export,stac]"
USER user
WORKDIR /work
ENTRYPOINT ["rs-embed"]
