"""The package fer, with its default detector, or with MTCNN: mtcnn."""

import json
import sys
import time

import cv2
from fer.fer import FER

HAPPINESS = {"happy": "happiness"}


def main() -> None:
  detector = FER(mtcnn=sys.argv[1:] == ["mtcnn"])
  for line in sys.stdin:
    start = time.perf_counter()
    found = detector.detect_emotions(cv2.imread(line.rstrip("\n")))
    seconds = time.perf_counter() - start
    faces = []
    for face in found:
      x, y, width, height = map(float, face["box"])
      scores = {HAPPINESS.get(name, name): float(x) for name, x in face["emotions"].items()}
      faces.append({"box": [x, y, x + width, y + height], "scores": scores})
    print("@", json.dumps({"ms": 1e3 * seconds, "faces": faces}), flush=True)


if __name__ == "__main__":
  main()
