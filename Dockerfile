# parts2whole in a container, for CPUs or NVIDIA GPUs (whose driver comes from the host, see docs/containers.md):
#   docker build --tag parts2whole:cpu .
#   docker build --tag parts2whole:cuda --build-arg TORCH_BACKEND=cu128 .
FROM python:3.12-slim-bookworm

# What uv calls PyTorch's builds: cpu, cu126, cu128, ...
ARG TORCH_BACKEND=cpu
ARG EXTRAS=dicom-seg,export

RUN pip install --no-cache-dir uv==0.13.9

WORKDIR /opt/parts2whole
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN uv pip install --system --no-cache --torch-backend "${TORCH_BACKEND}" \
    --constraint constraints.txt ".[${EXTRAS}]" \
    && useradd --create-home --uid 1000 p2w

# Whoever runs it may be any user: what is kept goes to folders that everybody can write to, or that are mounted.
ENV HOME=/home/p2w MPLCONFIGDIR=/tmp/matplotlib
RUN chmod 777 /home/p2w
USER 1000
WORKDIR /data
ENTRYPOINT ["parts2whole"]
CMD ["--help"]
