"""ferjax's default detector and classifier, or exports of them: DETECTOR CLASSIFIER."""

import json
import sys
import time

import ferjax


def main() -> None:
  files = sys.argv[1:]
  if files:
    from ferjax.export import load_exported

    predictor = load_exported(files[1], detector=files[0], batch_size=1)
  else:
    predictor = ferjax.load_predictor(batch_size=1)
  for line in sys.stdin:
    start = time.perf_counter()
    (prediction,) = predictor.predict([line.rstrip("\n")])
    seconds = time.perf_counter() - start
    faces = [{"box": face.box, "scores": face.scores} for face in prediction.faces]
    print("@", json.dumps({"ms": 1e3 * seconds, "faces": faces}), flush=True)


if __name__ == "__main__":
  main()
