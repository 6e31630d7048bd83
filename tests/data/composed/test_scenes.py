"""Composed scenes of drawn faces on plain and generated backgrounds."""

import dataclasses
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from ferjax.config import AugmentConfig, ComposeConfig, DataConfig
from ferjax.data import pipeline
from ferjax.data.composed.scenes import ComposedScenes, check_ranges
from ferjax.data.image import ImageError
from ferjax.data.loading import load_source
from ferjax.data.sources import ReleasedFaces, Source, load_example

SIDE = 96
NAMES = ("fear", "anger")
# Nothing that would change the colours by which the tests find the patches.
PLAIN = ComposeConfig(
  match=0.0, occlusion=0.0, blur=0.0, noise=0.0, quality=(100, 100), size=(16.0, 60.0)
)


class Faces:
  """Magenta crops with a distribution over two classes."""

  task = "classification"
  class_names = NAMES
  skipped = ["row 3: bad"]
  labels = np.array([[0.9, 0.1], [0.4, 0.6], [1, 0], [0.8, 0.2]], np.float32)

  def __init__(self, color=(250, 0, 250), bad=None):
    self.color, self.bad = color, bad

  def __len__(self):
    return len(self.labels)

  def __getitem__(self, index):
    if index == self.bad:
      raise ImageError(f"{self.origin(index)}: damaged")
    image = np.full((20 + index, 20, 3), self.color, np.uint8)
    return {"image": image, "label": self.labels[index].copy()}

  def origin(self, index):
    return f"face {index}"


@pytest.fixture(scope="module")
def dark(tmp_path_factory):
  """Two plain dark backgrounds, one of them smaller than a patch."""
  folder = tmp_path_factory.mktemp("dark")
  for size in ((80, 60), (7, 9)):
    Image.new("RGB", size, (40, 40, 40)).save(folder / f"{size[0]}.png")
  return sorted(map(str, folder.iterdir()))


def _scenes(backgrounds, count=200, *, faces=None, config=PLAIN, seed=5, **changes):
  faces = Faces() if faces is None else faces
  changes = {"image_size": SIDE, **changes}
  return ComposedScenes(faces, backgrounds, count, seed=seed, config=config, **changes)


def _visible(image):
  """Pixels that are mostly face, and those that are mostly non-face: as light, but grey."""
  red, green = image[..., 0].astype(int), image[..., 1].astype(int)
  return red - green > 110, green > 100


def _same(a, b):
  return all(np.array_equal(a[name], b[name]) for name in ("image", "boxes", "label"))


def test_record(dark):
  source = _scenes(dark)
  assert isinstance(source, Source)
  assert (source.task, source.class_names, len(source)) == ("detection", NAMES, 200)
  assert source.skipped == ["row 3: bad"]
  assert source.max_boxes == 4
  assert source.origin(7) == "composed scene 7 of seed 5"
  counts, labels = [], []
  for index in range(30):
    record = source[index]
    count = len(record["label"])
    assert (record["image"].shape, record["image"].dtype) == ((SIDE, SIDE, 3), np.uint8)
    assert (record["boxes"].shape, record["boxes"].dtype) == ((count, 4), np.float32)
    assert record["label"].dtype == np.int32
    assert (record["boxes"][:, :2] < record["boxes"][:, 2:]).all()
    assert record["boxes"].min(initial=0) >= 0
    assert record["boxes"].max(initial=0) <= SIDE
    counts.append(count)
    labels += record["label"].tolist()
  assert min(counts) == 0
  assert 2 <= max(counts) <= 4
  # One of the four faces is most probably of the second class.
  assert 0.05 < np.mean(labels) < 0.45
  balanced = _scenes(dark, config=dataclasses.replace(PLAIN, balance=True))
  labels = np.concatenate([balanced[index]["label"] for index in range(25)])
  assert 0.3 < labels.mean() < 0.7


def test_reproducible_in_any_order(dark):
  source = _scenes(dark, config=ComposeConfig(size=(16.0, 60.0)))
  copy = pickle.loads(pickle.dumps(source))
  for index in (9, 0, 199):
    assert _same(copy[index], source[index])
    assert _same(copy[np.int64(index)], source[index])
  assert not np.array_equal(source[0]["image"], source[1]["image"])
  assert not np.array_equal(_scenes(dark, seed=6)[0]["image"], _scenes(dark)[0]["image"])


def test_every_visible_face_has_a_box_and_every_box_a_visible_face(dark):
  config = dataclasses.replace(PLAIN, occlusion=0.5, inset=(0.0, 0.0, 0.0, 0.0))
  source = _scenes(dark, config=config)
  shares = []
  for index in range(25):
    record = source[index]
    face, _ = _visible(record["image"])
    inside = np.zeros((SIDE, SIDE), bool)
    for x1, y1, x2, y2 in record["boxes"]:
      box = slice(round(y1), round(y2)), slice(round(x1), round(x2))
      outer = slice(max(0, int(y1) - 1), int(y2) + 2), slice(max(0, int(x1) - 1), int(x2) + 2)
      inside[outer] = True
      shares.append(face[box].mean())
    assert not face[~inside].any()
  # 60 % of a box are free of other patches; the corners of a mask are transparent.
  assert min(shares) > 0.25
  assert max(shares) > 0.7


def test_as_many_non_faces_of_the_same_sizes(dark):
  config = dataclasses.replace(PLAIN, hidden=0.0, size=(16.0, 40.0), rotation=0.0)
  source = _scenes(dark, config=config)
  sizes = ([], [])
  for index in range(50):
    record = source[index]
    for found, pixels in zip(sizes, _visible(record["image"]), strict=True):
      _, _, stats, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8))
      found += [area for area in stats[1:, cv2.CC_STAT_AREA].tolist() if area > 60]
  faces, others = map(np.array, sizes)
  # The difference of two sums of 50 counts of standard deviation 1.4: three of its deviations.
  assert abs(len(faces) - len(others)) < 3 * np.sqrt(2 * 50) * 1.4
  assert len(faces) > 50
  for part in (0.25, 0.5, 0.75):
    ratio = np.quantile(faces, part) / np.quantile(others, part)
    assert 0.7 < ratio < 1.4


def test_grey(dark, tmp_path):
  colored = tmp_path / "red.png"
  Image.new("RGB", (50, 50), (200, 30, 30)).save(colored)
  for grey, faces, expected in (
    (True, Faces(), True),
    (False, Faces((90, 90, 90)), True),
    (False, Faces(), False),
  ):
    source = _scenes([str(colored)], faces=faces, grey=grey, config=ComposeConfig())
    spread = [np.ptp(source[index]["image"], axis=2).max() for index in range(5)]
    assert all((x == 0) == expected for x in spread)
  # Scenes without any patch are as grey as the others.
  empty = dataclasses.replace(PLAIN, empty=1.0)
  scene = _scenes([str(colored)], faces=Faces((90, 90, 90)), config=empty)[0]
  assert len(scene["label"]) == 0
  assert np.ptp(scene["image"], axis=2).max() == 0


def test_bad_files_are_named_or_skipped(dark, tmp_path):
  bad = tmp_path / "bad.jpg"
  bad.write_bytes(b"no image")
  source = _scenes([str(bad)])
  with pytest.raises(ImageError, match=r"bad.jpg: not an image in a known format"):
    source[0]
  assert load_example(source, 0, "skip") is None
  source = _scenes(dark, faces=Faces(bad=1))
  examples = [load_example(source, index, "skip") for index in range(10)]
  assert None in examples
  with pytest.raises(ImageError, match="face 1: damaged"):
    source[next(i for i, example in enumerate(examples) if example is None)]


def test_training_resumes_with_the_same_scenes(dark):
  source = _scenes(dark, 12, image_size=32, config=ComposeConfig(size=(16.0, 30.0)))
  plain = AugmentConfig(mosaic=0.0)
  config = DataConfig(image_size=32, max_boxes=8, augment=plain)

  def batches(start, count):
    dataset = pipeline.train_dataset(source, config, batch_size=2, seed=1, epochs=2, start=start)
    iterator = iter(dataset)
    taken = [next(iterator) for _ in range(count)]
    iterator.close()
    return taken

  for ours, expected in zip(batches(4, 1), batches(0, 3)[2:], strict=True):
    for name, value in expected.items():
      np.testing.assert_array_equal(ours[name], value)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"count": -1}, "num_examples is -1; expected 0 or more"),
    ({"seed": -1}, "seed is -1; expected 0 or more"),
    ({"image_size": 16}, "image_size is 16; expected 32 or more"),
    ({"backgrounds": ()}, "number of backgrounds is 0; expected 1 or more"),
    ({"config": ComposeConfig(size=(200.0, 300.0))}, "starts above the side of the scenes, 96"),
  ],
)
def test_bad_arguments_are_refused(dark, changes, message):
  with pytest.raises(ValueError, match=message):
    _scenes(**{"backgrounds": dark, **changes})
  with pytest.raises(IndexError, match="scene 200 of 200"):
    _scenes(dark)[200]


@pytest.mark.parametrize(
  ("field", "value"),
  [
    *((name, value) for name in ("empty", "occlusion", "match") for value in (-0.1, 1.1)),
    *(("count", value) for value in ((0, 2), (3, 2))),
    *(("size", value) for value in ((0.5, 9.0), (20.0, 10.0))),
    ("rotation", 90.0),
    ("hidden", 1.0),
    ("held_out", 0.5),
    ("noise", -1.0),
    ("blur", float("nan")),
    ("quality", (0, 50)),
    ("inset", (0.5, 0.0, 0.5, 0.0)),
    ("inset", (-0.1, 0.0, 0.0, 0.0)),
  ],
)
def test_ranges(field, value):
  check_ranges(ComposeConfig())
  with pytest.raises(ValueError, match=rf"compose.{field} \(.*must be"):
    check_ranges(dataclasses.replace(ComposeConfig(), **{field: value}))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """Face crops by class, red in train and blue in val, and 20 backgrounds."""
  root = tmp_path_factory.mktemp("composed")
  for split, color in (("train", (255, 0, 0)), ("val", (0, 0, 255))):
    (root / "faces" / split / "fear").mkdir(parents=True)
    (root / "faces" / split / "anger").mkdir()
    Image.new("RGB", (24, 24), color).save(root / "faces" / split / "fear/0.png")
  (root / "backgrounds").mkdir()
  for number in range(20):
    Image.new("RGB", (40, 40), (10 * number,) * 3).save(root / f"backgrounds/{number}.png")
  return root


def _config(folders, **compose):
  compose = {
    "faces": "image_folder",
    "backgrounds": str(folders / "backgrounds"),
    "held_out": 0.3,
    "size": (16.0, 60.0),
    **compose,
  }
  return DataConfig(
    source="composed_scenes",
    dir=str(folders / "faces"),
    class_names=NAMES,
    image_size=64,
    train_examples=9,
    val_examples=5,
    compose=ComposeConfig(**compose),
  )


def test_splits_have_their_own_faces_and_fixed_validation(folders):
  config = _config(folders)
  train, val = (load_source(config, split, seed=3) for split in ("train", "val"))
  assert (len(train), len(val)) == (9, 5)
  assert train.class_names == NAMES
  for source, channel in ((train, 0), (val, 2)):
    record = next(record for record in map(source.__getitem__, range(5)) if len(record["label"]))
    x1, y1, x2, y2 = record["boxes"][-1]  # the largest, on top
    middle = record["image"][int((y1 + y2) / 2), int((x1 + x2) / 2)].astype(int)
    assert middle[channel] - middle[2 - channel] > 100
    assert set(record["label"]) == {0}
  other = [load_source(config, split, seed=4) for split in ("train", "val")]
  assert not _same(other[0][0], train[0])
  assert _same(other[1][0], val[0])


@pytest.mark.parametrize(
  ("compose", "data", "message"),
  [
    ({"faces": ""}, {}, "data.compose.faces is ''; expected the source of the face crops: "),
    ({"faces": "voc"}, {}, "data.compose.faces is 'voc'; .* one of synthetic_faces, raf_db"),
    ({"backgrounds": ""}, {}, "data.compose.backgrounds is empty"),
    ({"noise": -1.0}, {}, r"compose.noise \(-1.0\) must be"),
    ({}, {"dir": ""}, "data.dir is empty, and the source 'image_folder' reads files"),
    ({}, {"train": "val", "val": "train", "dir": "{}/backgrounds"}, "val"),
    ({}, {"train_examples": 0}, r"data.train_examples \(0\) must be positive .*composed_scenes"),
  ],
)
def test_configs_without_data_are_refused(folders, compose, data, message):
  data = {k: v.format(folders) if isinstance(v, str) else v for k, v in data.items()}
  config = dataclasses.replace(_config(folders, **compose), **data)
  with pytest.raises(ValueError, match=message):
    load_source(config, "train")


def test_faces_are_those_that_a_classifier_would_get(folders):
  config = dataclasses.replace(_config(folders), source="image_folder")
  assert isinstance(load_source(config, "train", task="classification"), ReleasedFaces)
