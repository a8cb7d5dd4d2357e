# README's steps in a container.
#   docker build -t convnext_study .
#   docker run --rm -v "$PWD/runs:/study/runs" convnext_study roadmap --steps gelu --epochs 1
# torch comes with CUDA (add --gpus all to run). For a CPU alone, a quarter of the size, set TORCH to the
# options with which PyTorch's page has pip take its CPU wheels:
#   docker build --build-arg TORCH="OPTIONS" -t convnext_study .
FROM python:3.11-slim
ARG TORCH=""
COPY . /source
RUN pip install --no-cache-dir torch torchvision $TORCH \
    && pip install --no-cache-dir "/source[slurm]" \
    && convnext-study steps
WORKDIR /study
ENTRYPOINT ["convnext-study"]
CMD ["--help"]
