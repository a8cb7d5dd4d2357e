# README's steps in a container.
#   docker build -t convnext_study .
#   docker run --rm -v "$PWD/runs:/work/runs" convnext_study roadmap --steps gelu --epochs 1
# torch comes with CUDA (add --gpus all to run). For a CPU alone, a quarter of the size:
#   docker build --build-arg TORCH="--index-url ADDRESS_OF_PYTORCHS_CPU_WHEELS" -t convnext_study .
FROM python:3.11-slim
ARG TORCH=""
COPY . /source
RUN pip install --no-cache-dir torch torchvision $TORCH \
    && pip install --no-cache-dir "/source[slurm]" \
    && convnext-study steps
WORKDIR /work
ENTRYPOINT ["convnext-study"]
CMD ["--help"]
