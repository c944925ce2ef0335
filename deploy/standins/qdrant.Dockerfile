# Qdrant with the manners of its official image, around a program that lies in the build's folder.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
WORKDIR /qdrant
COPY qdrant ./qdrant
CMD ["./qdrant"]
