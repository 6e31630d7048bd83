"""The weights of prediction by default: the classifier gets the faces that the detector finds."""

DEFAULT_DETECTOR = "fer-yolo-mamba-nano-scenes"
DEFAULT_CLASSIFIER = "emonext-atto-ferplus"
