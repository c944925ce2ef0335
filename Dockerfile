# One image for every role: `docker run IMAGE` is the whole system in one container, `docker run IMAGE worker` a worker.
# BASE is the only parameter: Debian 12 or newer, or the output of scripts/base_image.sh if no registry can be reached.
# The file works with the classic builder and with BuildKit.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS ground
ENV DEBIAN_FRONTEND=noninteractive
# Group 0 owns the folders, since a uid that the image does not know, as on OpenShift, has that group.
# redis-server for the all-in-one container, the PostgreSQL client for backups.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates python3 redis-server tini postgresql-client \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /etc/redis /usr/share/doc /usr/share/man \
    && groupadd --gid 10001 millrace \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin millrace \
    && mkdir -p /data /originals && chown 10001:0 /data /originals && chmod 0775 /data /originals

FROM ground AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
RUN python3 -m venv /uv && /uv/bin/pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
WORKDIR /src
ENV UV_PROJECT_ENVIRONMENT=/opt/millrace UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1
COPY pyproject.toml uv.lock ./
RUN /uv/bin/uv sync --quiet --frozen --no-dev --no-install-project --python /usr/bin/python3
COPY README.md LICENSE supervisord.conf ./
COPY app app
COPY actors actors
# Not editable: the final image contains the venv, but no source tree and no builder.
RUN /uv/bin/uv sync --quiet --frozen --no-dev --no-editable --python /usr/bin/python3

FROM ground
# For the label alone; `make image` reads it from app/__init__.py.
ARG VERSION=unknown
LABEL org.opencontainers.image.title="Millrace" \
      org.opencontainers.image.description="Background work and knowledge in one engine: durable jobs, live progress, hybrid search." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/millrace /opt/millrace
COPY deploy/supervisorctl.conf /etc/supervisord.conf
# MILLRACE_HEALTH_PORT is for every process but the api, which serves its own. Only /data and /tmp are written.
ENV PATH=/opt/millrace/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MILLRACE_DATA_DIR=/data \
    MILLRACE_HOST=0.0.0.0 \
    MILLRACE_PORT=52100 \
    MILLRACE_HEALTH_HOST=0.0.0.0 \
    MILLRACE_HEALTH_PORT=52110
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 52100
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=6 \
    CMD millrace healthcheck "$MILLRACE_PORT" "$MILLRACE_HEALTH_PORT"
ENTRYPOINT ["tini", "--", "millrace"]
CMD ["all-in-one"]
