# One image for every service. The dependencies are one layer, the same whatever the service and whatever the code;
# SERVICE only selects the command that runs when none is given: `kalshi-data run` is `kalshi-data run $SERVICE` here.
# No compiler: every dependency is a wheel, arm64 and amd64.

FROM python:3.13-slim-trixie AS builder
COPY requirements.image.lock /build/
RUN python -m venv --without-pip /opt/kalshi-data \
    && python -m pip --python /opt/kalshi-data/bin/python install --quiet --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary :all: --no-compile --requirement /build/requirements.image.lock \
    && echo /app > /opt/kalshi-data/lib/python3.13/site-packages/kalshi-data.pth
# A third of it is never used: Arrow's own RPC and S3 client, headers, tests, and every service of AWS but S3 and how to sign in.
# The last line fails when something needed is gone.
RUN cd /opt/kalshi-data/lib/python3.13/site-packages \
    && rm -rf pyarrow/include pyarrow/tests pyarrow/*_flight* pyarrow/*_s3* \
    && find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name 'sso*' -exec rm -rf {} + \
    && /opt/kalshi-data/bin/python -B -c "import pyarrow.compute, pyarrow.dataset, pyarrow.parquet, s3fs, botocore.session as b; \
        [b.get_session().create_client(name, region_name='us-east-1') for name in ('s3', 'sts', 'sso')]"
# Bytecode is made here because the root is read-only there; by hash, so that it depends on no file's date.
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/kalshi-data/lib
COPY images/kalshi-data /opt/kalshi-data/bin/
RUN chmod 0755 /opt/kalshi-data/bin/kalshi-data

FROM builder AS code
COPY pyproject.toml /app/
COPY charts/kalshi-data/crds /app/charts/kalshi-data/crds
COPY config /app/config
COPY libs /app/libs
COPY migrations /app/migrations
COPY services /app/services
# Checked, because development writes newer files over these. Modes are those of the checkout, which may be nobody's but its owner's.
RUN python -m compileall -q --invalidation-mode checked-hash /app && chmod -R u=rwX,go=rX /app

FROM python:3.13-slim-trixie AS application
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin kalshi-data
COPY --from=builder /opt/kalshi-data /opt/kalshi-data
COPY --from=code /app /app
ENV PATH=/opt/kalshi-data/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    TMPDIR=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["kalshi-data"]
CMD ["run"]

# For file sync: the code belongs to the process, and SIGHUP starts it anew. Needs a writable root; never deployed.
FROM application AS dev
ARG SERVICE=connector
ENV SERVICE=${SERVICE}
USER 0:0
COPY images/kalshi-data-reload /opt/kalshi-data/bin/
RUN chmod 0755 /opt/kalshi-data/bin/kalshi-data-reload && chown -R 10001:10001 /app
USER 10001:10001
ENTRYPOINT ["kalshi-data-reload"]
CMD ["run"]

FROM application AS runtime
ARG SERVICE=connector
ARG VERSION=
ARG REVISION=
ARG CREATED=
ENV SERVICE=${SERVICE} \
    KALSHI_DATA_BUILD_VERSION=${VERSION} \
    KALSHI_DATA_BUILD_COMMIT=${REVISION} \
    KALSHI_DATA_BUILD_DATE=${CREATED}
LABEL org.opencontainers.image.title="kalshi-data" \
    org.opencontainers.image.description="Redundant, provable, real-time capture of every Kalshi market" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"
