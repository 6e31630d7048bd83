"""A contact sheet of composed scenes with their boxes.

  python -m ferjax.data.composed.sheet --faces ferplus --dir /data/ferplus --classes 8 \\
    --backgrounds /data/backgrounds --sheet OUT.png
"""

import argparse
from collections.abc import Sequence

from PIL import Image, ImageDraw

from ferjax.config import ComposeConfig, DataConfig
from ferjax.data.datasets.base import SPLITS
from ferjax.data.datasets.catalog import COMPOSED
from ferjax.data.loading import load_source
from ferjax.data.sources import Source
from ferjax.expressions import EXPRESSIONS

COLUMNS, ROWS = 5, 4
_GAP = 4  # pixels between the scenes
_YELLOW = (255, 255, 0)


def contact_sheet(source: Source, columns: int = COLUMNS, rows: int = ROWS) -> Image.Image:
  """The first square scenes of a detection source, with their boxes and short labels."""
  side = source[0]["image"].shape[0] + _GAP
  sheet = Image.new("RGB", (columns * side, rows * side))
  for index in range(min(len(source), columns * rows)):
    example = source[index]
    image = Image.fromarray(example["image"])
    draw = ImageDraw.Draw(image)
    for box, label in zip(example["boxes"], example["label"], strict=True):
      draw.rectangle(box.tolist(), outline=_YELLOW)
      draw.text((box[0] + 2, box[1] + 1), source.class_names[label][:3], fill=_YELLOW)
    row, column = divmod(index, columns)
    sheet.paste(image, (column * side, row * side))
  return sheet


def main(arguments: Sequence[str] | None = None) -> None:
  """Renders the sheet that the command line describes."""
  parser = argparse.ArgumentParser(description="Renders a contact sheet of composed scenes.")
  add = parser.add_argument
  add("--faces", required=True, help="source of the face crops: see `ferjax data list`")
  add("--dir", default="", help="folder of the face crops")
  add("--backgrounds", required=True, metavar="DIR", help="photographs without faces")
  add("--classes", type=int, choices=(7, 8), default=7, help="number of expressions")
  add("--class-names", metavar="A,B,...", help="classes of your own data, in the order of labels")
  add("--split", choices=SPLITS, default="train", help="default: %(default)s")
  add("--size", type=int, default=320, help="side of a scene, pixels (default: %(default)s)")
  add("--grey", action="store_true", help="grey scenes")
  add("--sheet", required=True, metavar="FILE", help="PNG file to write")
  options = parser.parse_args(arguments)
  names = EXPRESSIONS[: options.classes]
  if options.class_names:
    names = tuple(name.strip() for name in options.class_names.split(","))
  config = DataConfig(
    source=COMPOSED,
    dir=options.dir,
    class_names=names,
    image_size=options.size,
    grey=options.grey,
    compose=ComposeConfig(faces=options.faces, backgrounds=options.backgrounds),
    train_examples=COLUMNS * ROWS,
    val_examples=COLUMNS * ROWS,
    test_examples=COLUMNS * ROWS,
  )
  contact_sheet(load_source(config, options.split)).save(options.sheet)


if __name__ == "__main__":
  main()
