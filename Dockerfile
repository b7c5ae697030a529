# One target per service; `cargo xtask images` puts the static binaries where COPY finds them.
# Built on the host, since a build inside a container would need a registry for its base image.
FROM scratch AS base
LABEL org.opencontainers.image.source="https://github.com/flotilla/flotilla" org.opencontainers.image.licenses="Apache-2.0"
STOPSIGNAL SIGTERM

FROM base AS kv-svc
COPY --chown=65532:65532 empty /data
COPY bin/kv-svc /kv-svc
USER 65532:65532
EXPOSE 2379 2380
ENTRYPOINT ["/kv-svc"]

FROM base AS image-svc
COPY --chown=65532:65532 empty /data
COPY bin/image-svc /image-svc
EXPOSE 5000
ENTRYPOINT ["/image-svc"]

FROM base AS scheduler-svc
COPY --chown=65532:65532 empty /pki
COPY bin/scheduler-svc /scheduler-svc
USER 65532:65532
EXPOSE 6443 10259 18000
ENTRYPOINT ["/scheduler-svc"]

# nft renders the Service addresses; it comes with the libraries it needs.
FROM base AS runtime-svc
COPY nft /
COPY bin/runtime-svc /runtime-svc
ENTRYPOINT ["/runtime-svc"]

FROM base AS dns-svc
COPY bin/dns-svc /dns-svc
USER 65532:65532
EXPOSE 53/udp 53/tcp
ENTRYPOINT ["/dns-svc"]

FROM base AS metrics-svc
COPY --chown=65532:65532 empty /data
COPY bin/metrics-svc /metrics-svc
USER 65532:65532
EXPOSE 9090
ENTRYPOINT ["/metrics-svc"]

FROM base AS gateway
COPY bin/gateway /gateway
USER 65532:65532
EXPOSE 8080 9901
ENTRYPOINT ["/gateway"]

FROM base AS flotilla
COPY bin/flotilla /flotilla
USER 65532:65532
ENTRYPOINT ["/flotilla"]
