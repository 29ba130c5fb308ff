# One image for every process of docker-compose.yml; which one it is, the compose file says.
#
#   docker build --tag wardround:0.1 .
#
# Packages come from wherever pip is configured to look. PyTorch's own package index has builds
# for processors alone, without two gigabytes of CUDA: --build-arg TORCH_INDEX=<that index>.
FROM python:3.11.14-slim-bookworm

ARG TORCH_INDEX=""

ENV LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

# The Fleet API's proxy; everything else is Python.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends nginx-light \
 && rm -rf /var/lib/apt/lists/*

RUN python3.11 -m venv /opt/wardround
ENV PATH=/opt/wardround/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

WORKDIR /src
COPY constraints.txt ./
RUN pip install --constraint constraints.txt \
      ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)"

COPY pyproject.toml README.md LICENSE ./
COPY privacy/ privacy/
COPY strategies/ strategies/
COPY web/ web/
COPY client/ client/
COPY server/ server/
COPY study/ study/
RUN pip install --constraint constraints.txt . \
 && rm -rf /src/*

# Where volumes and secrets are mounted, so that a read-only root has the places.
RUN mkdir -p /data /etc/wardround /run/custodian /run/secrets /srv/runs /srv/studies \
      /var/lib/wardround

# Nobody in particular; each service has a user of its own and writes to what is mounted alone.
USER 10000:10000
WORKDIR /
ENV HOME=/tmp \
    FLWR_HOME=/tmp/flower \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HF_HUB_OFFLINE=1 \
    TOKENIZERS_PARALLELISM=false
CMD ["wardround", "--help"]
