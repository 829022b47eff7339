# Penstock on the CPU.
#   docker build --tag penstock .
#   docker run --rm --publish 8000-8002:8000-8002 penstock
# docs/operate.md says what else there is to set.

FROM rust:1.95.0-slim-bookworm AS build
# librdkafka, OpenSSL and zstd are built from their sources.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /penstock
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/penstock/target \
    cargo build --locked --release --package penstock --bin penstock \
    && install -D --strip target/release/penstock /out/penstock

FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/penstock --create-home penstock
COPY --from=build /out/penstock /usr/local/bin/penstock
COPY LICENSE /usr/share/doc/penstock/
COPY models/sentiment /models/sentiment
ENV PENSTOCK_GRPC_ADDR=0.0.0.0:8001 \
    PENSTOCK_HTTP_ADDR=0.0.0.0:8000 \
    PENSTOCK_METRICS_ADDR=0.0.0.0:8002 \
    HF_HOME=/var/lib/penstock
USER 10001
EXPOSE 8000 8001 8002
# Healthy is ready: every model serves. A large model may take its time before that.
HEALTHCHECK --start-period=60s --interval=10s --timeout=3s \
    CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:8002/health"]
ENTRYPOINT ["penstock"]
CMD ["serve", "--model", "sentiment=/models/sentiment"]
