import pytest

from ferjax.config import TrainConfig
from ferjax.training.phases import make_phases


def test_one_phase_without_frozen_parts():
  (phase,) = make_phases(TrainConfig(epochs=3, batch_size=4, freeze="none", freeze_epochs=2), 10)
  assert (phase.first_step, phase.steps_per_epoch, phase.end_step) == (0, 2, 6)
  assert phase.frozen == "none"


def test_two_phases_count_over_the_whole_run():
  config = TrainConfig(
    epochs=5, batch_size=4, freeze="backbone", freeze_epochs=2, freeze_batch_size=8
  )
  first, second = make_phases(config, 20)
  assert (first.batch_size, first.steps_per_epoch, first.end_step) == (8, 2, 4)
  assert (first.frozen, second.frozen) == ("backbone", "none")
  assert (second.first_step, second.steps_per_epoch, second.end_step) == (4, 5, 19)
  assert (second.first_epoch, second.first_example) == (2, 40)
  assert second.epoch(9) == 3.0
  assert second.epoch(10) == pytest.approx(3.2)
  assert second.example(6) == 48


def test_all_epochs_frozen():
  config = TrainConfig(epochs=2, freeze="backbone", freeze_epochs=9, freeze_batch_size=2)
  (phase,) = make_phases(config, 4)
  assert (phase.frozen, phase.end_step) == ("backbone", 4)


def test_too_few_examples():
  with pytest.raises(ValueError, match="has 12 examples, fewer than one batch of 16"):
    make_phases(TrainConfig(freeze="none"), 12)
