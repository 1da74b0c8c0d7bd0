# docker buildx bake                  the images of a release, for arm64 and amd64 (--push, or --load for one platform)
# docker buildx bake development      the database and the S3 server of a development cluster

variable "REGISTRY" {
  default = "" # with its slash: "123456789012.dkr.ecr.us-east-1.amazonaws.com/"
}

variable "VERSION" {
  default = "1.0.0" # the chart's appVersion
}

variable "REVISION" {
  default = "" # the commit
}

variable "CREATED" {
  default = "" # RFC 3339
}

group "default" {
  targets = ["kalshi-data", "service"]
}

group "development" {
  targets = ["kalshi-data-postgres", "kalshi-data-s3"]
}

target "_image" {
  context    = "."
  dockerfile = "Dockerfile"
  target     = "runtime"
  platforms  = ["linux/arm64", "linux/amd64"]
  args = {
    VERSION  = VERSION
    REVISION = REVISION
    CREATED  = CREATED
  }
  attest = ["type=provenance,mode=max", "type=sbom"]
}

# What the chart runs: it always says which service.
target "kalshi-data" {
  inherits = ["_image"]
  tags     = ["${REGISTRY}kalshi-data:${VERSION}"]
}

# The same layers under every service's name, with its command as the default.
target "service" {
  name     = "kalshi-data-${service}"
  inherits = ["_image"]
  matrix = {
    service = ["archiver", "connector", "deduplicator", "operator", "poller", "registry", "simulator"]
  }
  args = {
    SERVICE = service
  }
  tags = ["${REGISTRY}kalshi-data-${service}:${VERSION}"]
}

target "kalshi-data-postgres" {
  context   = "images/postgres"
  platforms = ["linux/arm64", "linux/amd64"]
  tags      = ["${REGISTRY}kalshi-data-postgres:${VERSION}"]
}

target "kalshi-data-s3" {
  context   = "images/s3"
  platforms = ["linux/arm64", "linux/amd64"]
  tags      = ["${REGISTRY}kalshi-data-s3:${VERSION}"]
}
