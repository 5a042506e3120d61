# A member in a small image: the two programs and the C++ library, no shell, not root.
#
#   docker build -t quorate .
#   docker run -p 2379:2379 -v quorate:/data quorate --data-dir=/data --listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls=http://localhost:2379

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# RocksDB is compiled for the processor that this runs on.
RUN make build && mkdir -p /out/bin /out/data && cp target/make/release/quorate target/make/release/quoratectl /out/bin/

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/bin/ /usr/local/bin/
# A volume takes the owner of the folder that it covers.
COPY --from=build --chown=nonroot:nonroot /out/data /data
VOLUME /data
EXPOSE 2379 2380
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/local/bin/quoratectl", "--endpoint=127.0.0.1:2379", "status"]
ENTRYPOINT ["/usr/local/bin/quorate"]
CMD ["--data-dir=/data", "--listen-client-urls=http://0.0.0.0:2379", "--advertise-client-urls=http://localhost:2379"]
