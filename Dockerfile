# docker build --target cpu -t rs-embed .      (or --target cuda; run that one with --gpus all)
# docker run --rm -v "$PWD:/work" -v weights:/weights rs-embed embed mosaiks_rcf --backend sample --out vector.npz
FROM python:3.12-slim AS build
RUN pip install --no-cache-dir "uv>=0.7"
WORKDIR /src
COPY pyproject.toml README.md LICENSE THIRD_PARTY.md ./
COPY packaging/readme.py packaging/
COPY src src
RUN uv build --wheel --out-dir /dist

FROM python:3.12-slim AS base
RUN pip install --no-cache-dir "uv>=0.7" && useradd --create-home user && install -d -o user /work /weights
COPY --from=build /dist /dist
ENV HF_HOME=/weights
WORKDIR /work

FROM base AS cuda
# This torch brings its own CUDA libraries; the host needs the driver only. Versions are those of the tests.
COPY constraints.txt /dist/
RUN uv pip install --system --no-cache "$(echo /dist/*.whl)[plot,export,stac]" --constraint /dist/constraints.txt
USER user
ENTRYPOINT ["rs-embed"]

FROM base AS cpu
# torch's CPU wheels have versions of their own, and take a tenth of the room.
RUN uv pip install --system --no-cache --torch-backend cpu "$(echo /dist/*.whl)[plot,export,stac]"
USER user
ENTRYPOINT ["rs-embed"]
