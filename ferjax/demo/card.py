"""The model card of the page: what the description of the weights says, as Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any

from ferjax.trained import TrainedNetwork

_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "face_ap50", "map50")
_LIMITS = """### What they are not for

An expression is not an emotion: people smile when they are not happy, and are sad without showing
it. Do not use the scores to judge or select people, to infer emotions at workplaces or schools, to
watch people who did not agree, or for any decision that nobody checks."""


def model_card(networks: Mapping[str, TrainedNetwork], settings: Mapping[str, Any]) -> str:
  """Markdown about the weights in use.

  Args:
    networks: what a network does here -> the open weights.
    settings: of the predictor.
  """
  parts = [_network(purpose, network) for purpose, network in networks.items()]
  rows = [f"| {name} | {_value(x)} |" for name, x in settings.items()]
  if rows:
    parts.append("\n".join(["### Settings", "", "| setting | value |", "| --- | --- |", *rows]))
  return "\n\n".join([*parts, _LIMITS])


def _network(purpose: str, network: TrainedNetwork) -> str:
  meta: Mapping[str, Any] = network.meta
  model = meta["model"]
  pixels = f"{meta['image_size']} pixels, {'grey' if meta['grey'] else 'colour'}"
  rows = {
    "network": " ".join(str(model[x]) for x in ("name", "size", "variant") if x in model),
    "input": pixels,
    "classes": ", ".join(meta["class_names"]),
    "step": meta.get("step"),
    "training data": meta.get("data"),
    "terms": meta.get("licence"),
    "selection": meta.get("selection"),
  }
  lines = [f"### {purpose}: {_escaped(network.name)}", "", "| property | value |", "| --- | --- |"]
  lines += [f"| {name} | {_value(x)} |" for name, x in rows.items() if x not in (None, "")]
  for data, metrics in meta.get("metrics", {}).items():
    lines += ["", *_metrics(data, metrics, meta["class_names"])]
  if not meta.get("metrics"):
    lines += ["", "The weights have no measurements with them."]
  return "\n".join(lines)


def _metrics(data: str, metrics: Mapping[str, float], class_names: list[str]) -> Iterator[str]:
  number = metrics.get("num_images")
  of = "" if number is None else f", {number:,.0f} images"
  yield f"| {_escaped(data)}{of} | value | 95 % interval |"
  yield "| --- | --- | --- |"
  names = [(name, name, name) for name in _SHOWN]
  names += [(f"recall, {x}", f"recall/{x}", x) for x in class_names]
  for title, key, name in names:
    if key in metrics:
      kind, of_class = ("recall", f"/{name}") if key != name else (name, "")
      low, high = (metrics.get(f"{kind}_{end}{of_class}") for end in ("low", "high"))
      interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
      yield f"| {_escaped(title.replace('_', ' '))} | {metrics[key]:.3f} | {interval} |"


def _value(value: Any) -> str:
  return _escaped(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


def _escaped(text: str) -> str:
  """Text without the signs of Markdown's tables and of HTML."""
  return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
