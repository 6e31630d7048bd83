"""The package fer on every N-th frame of the start of a film: FILM N SECONDS [mtcnn]."""

import sys

import cv2
from fer.fer import FER


def main() -> None:
  film, stride, seconds, *detector = sys.argv[1:]
  fer, frames = FER(mtcnn=detector == ["mtcnn"]), cv2.VideoCapture(film)
  for index in range(round(float(seconds) * frames.get(cv2.CAP_PROP_FPS))):
    if not frames.grab():
      break
    if index % int(stride) == 0:
      fer.detect_emotions(frames.retrieve()[1])


if __name__ == "__main__":
  main()
