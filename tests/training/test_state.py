import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ferjax.config import TrainConfig
from ferjax.training.state import create_state, init_variables, update_ema

FIELDS = ("weight", "bias", "running_mean", "running_var")


def test_averages_of_the_released_program(golden, golden_rules):
  trajectory = golden.expect("model_ema/trajectory")[:, :12]
  rules = zip(FIELDS, ("norm_weight", "bias", "running_mean", "running_var"), strict=True)
  ema = {name: jnp.asarray(golden_rules.weight(name, (3,), rule)) for name, rule in rules}
  for s, updates in enumerate((1, 2, 3, 5001, 5002, 5003)):
    online = {name: jnp.asarray(golden_rules.normal(f"ema:{s}:{name}", (3,))) for name in FIELDS}
    ema = update_ema(ema, online, jnp.int32(updates), TrainConfig())
    found = np.concatenate([ema[name] for name in FIELDS])
    np.testing.assert_allclose(found, trajectory[s], atol=1e-6)


def test_decay_ramps_up(golden):
  zero, one = {"x": jnp.float32(0)}, {"x": jnp.float32(1)}
  found = [
    update_ema(one, zero, jnp.int32(updates), TrainConfig())["x"]
    for updates in (1, 2, 10, 100, 1000, 2000, 5000, 20000)
  ]
  np.testing.assert_allclose(found, golden.expect("model_ema/decay"), atol=1e-6)


def test_average_of_equal_values_is_exact():
  value = {"x": jnp.array([0.1, 1 / 3, 1e-7])}
  ema = update_ema(value, value, jnp.int32(7), TrainConfig())
  np.testing.assert_array_equal(ema["x"], value["x"])


@pytest.mark.parametrize("ema", [True, False])
def test_create_state(tiny, ema):
  variables = init_variables(tiny.Model(), jax.random.key(0), 32)
  state = create_state(variables, optax.sgd(0.1), ema=ema)
  assert state.step == 0
  assert jax.tree.structure(state.inference_variables()) == jax.tree.structure(variables)
  if ema:
    averaged, raw = state.ema["params"]["head"]["kernel"], state.params["head"]["kernel"]
    np.testing.assert_array_equal(averaged, raw)
    assert averaged.unsafe_buffer_pointer() != raw.unsafe_buffer_pointer()
  else:
    assert state.ema == {}


def test_power_averages_of_the_released_program(emonext_golden):
  """ema-pytorch: copies until call 100, then averages at every 16th call; golden `ema/*`."""
  config = TrainConfig(ema_rule="power", ema_decay=0.99, ema_every=16)
  ema = {"weight": jnp.full(2, -1.0), "running_mean": jnp.full(2, -1.0)}

  def step(ema, t):
    online = {
      "weight": jnp.stack([t, jnp.sin(t)]),
      "running_mean": jnp.stack([2 * t, -t]),
    }
    ema = update_ema(ema, online, t.astype(jnp.int32) + 1, config)
    return ema, ema

  _, found = jax.lax.scan(step, ema, jnp.arange(400.0))
  for name, values in found.items():
    expected = emonext_golden.expect(f"ema/{name}")
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6, err_msg=name)


def test_copies_are_exact():
  """A copy is bitwise equal, and nothing changes between due calls."""
  config = TrainConfig(ema_rule="power", ema_decay=0.99, ema_every=16)
  value, old = {"x": jnp.array([0.1, 1 / 3, 1e-7])}, {"x": jnp.array([5.0, -1e9, 3.0])}
  np.testing.assert_array_equal(update_ema(old, value, jnp.int32(33), config)["x"], value["x"])
  np.testing.assert_array_equal(update_ema(old, value, jnp.int32(34), config)["x"], old["x"])
