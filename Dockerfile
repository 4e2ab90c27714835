# The operator. docker build -t headway-operator:dev .
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS requirements
WORKDIR /src
COPY hack/requirements.py hack/
COPY pyproject.toml .
RUN python hack/requirements.py operator > /requirements.txt

# Third-party packages: rebuilt only when the requirements change.
FROM ${BASE_IMAGE} AS packages
RUN python -m venv /opt/headway/venv
ENV PATH=/opt/headway/venv/bin:$PATH
COPY --from=requirements /requirements.txt /
RUN pip install --no-cache-dir --requirement /requirements.txt
COPY hack/trim_kubernetes.py /
# NumPy and SciPy carry their tests: 50 MB.
RUN python /trim_kubernetes.py \
 && find /opt/headway/venv -type d -name tests -prune -exec rm -r {} + \
 && pip uninstall --yes pip \
 && echo /opt/headway/code > "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/headway.pth"

# Our own code, in a folder of its own: a layer of a few hundred kilobytes.
FROM ${BASE_IMAGE} AS code
RUN python -m venv /opt/headway/venv && /opt/headway/venv/bin/pip install --no-cache-dir hatchling
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY trainer-image trainer-image
RUN /opt/headway/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation \
      --target /opt/headway/code . \
 && cd /opt/headway/code && rm -rf headway bin/headway bin/headway-agent

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="Headway operator" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/headway/code/bin:/opt/headway/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=packages /opt/headway/venv /opt/headway/venv
COPY --from=code /opt/headway/code /opt/headway/code
USER 65532:65532
EXPOSE 8080 8443
ENTRYPOINT ["headway-operator"]
