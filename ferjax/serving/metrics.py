"""The metrics of a service, in Prometheus' format."""

from prometheus_client import (
  CollectorRegistry,
  Counter,
  Gauge,
  Histogram,
  ProcessCollector,
  generate_latest,
)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
  """The metrics of one service; each has a registry of its own.

  Attributes:
    requests: requests for a prediction, by the status of the answer.
    request_seconds: their time, from the head of the request to the answer.
    batch_images: images per batch.
    batch_seconds: time of the model per batch.
    waiting: images that have arrived and have no answer yet.
    faces: faces in the answers.
  """

  def __init__(self):
    self.registry = CollectorRegistry()
    ProcessCollector(registry=self.registry)
    self.requests = Counter(
      "ferjax_requests",
      "Requests for a prediction, by the status of the answer.",
      ["status"],
      registry=self.registry,
    )
    self.request_seconds = Histogram(
      "ferjax_request_seconds",
      "Time from the head of a request to its answer.",
      buckets=_SECONDS,
      registry=self.registry,
    )
    self.batch_images = Histogram(
      "ferjax_batch_images",
      "Images per batch.",
      buckets=(1, 2, 4, 8, 16, 32, 64),
      registry=self.registry,
    )
    self.batch_seconds = Histogram(
      "ferjax_batch_seconds",
      "Time of the model for a batch.",
      buckets=_SECONDS,
      registry=self.registry,
    )
    self.waiting = Gauge(
      "ferjax_waiting_images",
      "Images that have arrived and have no answer yet.",
      registry=self.registry,
    )
    self.faces = Counter("ferjax_faces", "Faces in the answers.", registry=self.registry)

  def text(self) -> bytes:
    """All metrics, as a scraper reads them."""
    return generate_latest(self.registry)
