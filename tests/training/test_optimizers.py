import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from ferjax.config import OptimizerConfig, TrainConfig
from ferjax.interop import released_names
from ferjax.models import create_model
from ferjax.training.optimizers import (
  DECAY_RULES,
  decay_mask,
  decay_rules,
  frozen_mask,
  learning_rates,
  make_optimizer,
  make_schedule,
  parse_group_rates,
  scaled_learning_rate,
)
from ferjax.training.phases import make_phases

# The released program's parameter groups.
DECAYED, NOT_DECAYED, NOT_TRAINED = (
  "weight (decay 5e-4)",
  ("bias (no decay)", "bn weight (no decay)"),
  None,
)


@pytest.mark.parametrize("schedule", ["cosine", "step"])
@pytest.mark.parametrize(("name", "batch_size"), [("freeze_bs32", 32), ("unfreeze_bs16", 16)])
def test_rates_of_the_released_program(golden, schedule, name, batch_size):
  key = {"cosine": "lr_cos", "step": "lr_step"}[schedule]
  config = OptimizerConfig(schedule=schedule)
  rates = learning_rates(config, np.arange(300.0), batch_size=batch_size, epochs=300)
  np.testing.assert_allclose(rates, golden.expect(f"{key}/{name}"), rtol=1e-9)


def test_warm_up_and_one_cosine():
  """By hand: 4 updates up, then 6 down, ending above the final rate."""
  config = OptimizerConfig(
    schedule="warmup_cosine",
    learning_rate=0.8,
    scale_by_batch=False,
    warmup_steps=4,
    final_fraction=0.5,
  )
  schedule = make_schedule(config, batch_size=32, epochs=5, steps_per_epoch=2)
  falling = [0.4 + 0.2 * (1 + np.cos(np.pi * i / 7)) for i in range(7)]
  rates = [float(schedule(step)) for step in range(10)]
  np.testing.assert_allclose(rates, [0.2, 0.4, 0.6, *falling], rtol=1e-6)


def test_warm_restarts_repeat():
  config = OptimizerConfig(schedule="warm_restarts", warmup_steps=2, cycle_steps=6)
  schedule = make_schedule(config, batch_size=64, epochs=9, steps_per_epoch=2)
  rates = np.array([float(schedule(step)) for step in range(18)])
  np.testing.assert_array_equal(rates[:6], rates[6:12])
  np.testing.assert_array_equal(rates[:6], rates[12:])
  assert rates.max() == pytest.approx(1e-2)


def test_exponential_decay():
  config = OptimizerConfig(
    schedule="exponential", learning_rate=4e-5, scale_by_batch=False, epoch_decay=0.98
  )
  schedule = make_schedule(config, batch_size=64, epochs=9, steps_per_epoch=2)
  rates = [float(schedule(step)) for step in range(18)]
  np.testing.assert_allclose(rates, 4e-5 * 0.98 ** (np.arange(18) // 2), rtol=1e-6)


def test_warm_restarts_of_the_released_program(emonext_golden):
  config = OptimizerConfig(
    schedule="warm_restarts",
    learning_rate=1e-3,
    scale_by_batch=False,
    warmup_steps=128,
    cycle_steps=1024,
    final_fraction=0.0,
  )
  schedule = make_schedule(config, batch_size=64, epochs=3, steps_per_epoch=1200)
  rates = jax.vmap(schedule)(jnp.arange(3001))
  np.testing.assert_allclose(rates, emonext_golden.expect("lr/values"), rtol=1e-6, atol=1e-10)


def test_clipped_adamw_of_the_released_program(emonext_golden):
  """Ten updates on f = 0.5 w.Q.w - c.w + 0.1 sum(b^4), clipped at norm 1, with recorded rates."""
  Q, c, w, b = (
    jnp.asarray(emonext_golden.expect(f"adamw_clip/{name}")) for name in ("Q", "c", "w0", "b0")
  )
  rates = jnp.asarray(emonext_golden.expect("adamw_clip/lr"), jnp.float32)
  config = OptimizerConfig(
    name="adamw", momentum=0.9, weight_decay=0.01, decay="all", clip_norm=1.0
  )
  optimizer = make_optimizer(config, lambda step: rates[step])
  params = {"w": w, "b": b}
  state = optimizer.init(params)

  def value(params):
    w, b = params["w"], params["b"]
    return 0.5 * w @ Q @ w - c @ w + 0.1 * jnp.sum(b**4)

  for row in emonext_golden.expect("adamw_clip/trajectory"):
    updates, state = optimizer.update(jax.grad(value)(params), state, params)
    params = jax.tree.map(jnp.add, params, updates)
    np.testing.assert_allclose(jnp.concatenate([params["w"], params["b"]]), row, atol=1e-6)


def test_exponential_rates_of_the_released_program(fermam_golden):
  config = OptimizerConfig(schedule="exponential", learning_rate=4e-5, scale_by_batch=False)
  expected = fermam_golden.expect("lr_exp/values")
  found = learning_rates(config, np.arange(float(len(expected))), batch_size=300, epochs=260)
  np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_schedule_of_the_published_run(golden):
  train = TrainConfig(epochs=300, freeze="backbone", freeze_epochs=100)
  rates = []
  for phase in make_phases(train, num_examples=70):
    schedule = make_schedule(
      OptimizerConfig(),
      batch_size=phase.batch_size,
      epochs=300,
      steps_per_epoch=phase.steps_per_epoch,
      first_step=phase.first_step,
      first_epoch=phase.first_epoch,
    )
    steps = jnp.arange(phase.first_step, phase.end_step)
    by_epoch = np.asarray(jax.vmap(schedule)(steps)).reshape(-1, phase.steps_per_epoch)
    assert (by_epoch == by_epoch[:, :1]).all()
    rates.extend(by_epoch[:, 0])
  np.testing.assert_allclose(rates, golden.expect("lr_cos/published_run"), rtol=1e-6)


@pytest.mark.parametrize(("batch", "rate"), [(64, 1e-2), (32, 5e-3), (1, 5e-4), (1024, 5e-2)])
def test_rate_follows_the_batch_within_bounds(batch, rate):
  assert scaled_learning_rate(OptimizerConfig(), batch) == pytest.approx(rate)


@pytest.mark.parametrize("epochs", [1, 2, 3, 10])
@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_short_runs_have_finite_rates_in_bounds(epochs, schedule):
  config = OptimizerConfig(schedule=schedule)
  rates = learning_rates(config, np.arange(float(epochs)), batch_size=64, epochs=epochs)
  assert rates.shape == (epochs,)
  assert (rates >= 0.99e-4).all()
  assert (rates <= 1.01e-2).all()


def test_sgd_equals_torch(golden):
  q, c, w0 = (jnp.asarray(golden.expect(f"sgd_nesterov/{name}")) for name in ("Q", "c", "w0"))
  rates = jnp.array([0.005, 0.005, 0.01, 0.01, 0.02, 0.02, 0.05, 0.05])
  optimizer = make_optimizer(OptimizerConfig(), lambda step: rates[step])
  params = {"head": {"kernel": w0}}
  state = optimizer.init(params)
  trajectory = []
  for _ in rates:
    grads = jax.tree.map(lambda w: q @ w - c, params)
    updates, state = optimizer.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    trajectory.append(params["head"]["kernel"])
  np.testing.assert_allclose(trajectory, golden.expect("sgd_nesterov/trajectory"), atol=1e-6)


def test_adamw_by_hand():
  config = OptimizerConfig(name="adamw", momentum=0.9, weight_decay=0.1)
  optimizer = make_optimizer(config, lambda step: 0.01)
  params = {"head": {"kernel": jnp.array([2.0]), "bias": jnp.array([3.0])}}
  grads = {"head": {"kernel": jnp.array([0.5]), "bias": jnp.array([-4.0])}}
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  # Adam's first step has length one for any gradient; the decay is decoupled.
  assert updates["head"]["kernel"][0] == pytest.approx(-0.01 * (1 + 0.1 * 2), rel=1e-5)
  assert updates["head"]["bias"][0] == pytest.approx(0.01, rel=1e-5)


def test_rates_of_parts_by_hand():
  """Plain SGD: the rate 0.5 times 2 for the head, 0.1 for the backbone, 1 for the neck."""
  config = OptimizerConfig(momentum=0.0, weight_decay=0.0, group_rates="head=2, backbone=0.1")
  optimizer = make_optimizer(config, lambda step: 0.5)
  params = {part: {"kernel": jnp.ones(1)} for part in ("backbone", "neck", "head")}
  grads = {part: {"kernel": jnp.array([4.0])} for part in params}
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  moves = {part: float(update["kernel"][0]) for part, update in updates.items()}
  assert moves == pytest.approx({"backbone": -0.2, "neck": -2.0, "head": -4.0})
  assert parse_group_rates("") == {}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_rates_of_parts_equal_parameter_groups_of_torch(name):
  """`torch.optim.SGD(nesterov=True)` and `AdamW` with a rate for each group, in float64."""
  momentum, decay, factors = 0.9, 0.1, {"a": 1.0, "b": 0.25}
  config = OptimizerConfig(
    name=name, momentum=momentum, weight_decay=decay, decay="all", group_rates="b=0.25"
  )
  rates = [0.1, 0.2, 0.05]
  optimizer = make_optimizer(config, lambda step: jnp.array(rates)[step])
  start = {"a": [1.0, -2.0], "b": [3.0, 0.5]}
  params = {part: {"kernel": jnp.array(value)} for part, value in start.items()}
  state = optimizer.init(params)
  rng = np.random.default_rng(0)
  expected = {part: np.array(value) for part, value in start.items()}
  moments = {part: [np.zeros(2), np.zeros(2)] for part in start}
  for step, base in enumerate(rates):
    grads = {part: rng.standard_normal(2) for part in start}
    for part, g in grads.items():
      p, rate = expected[part], base * factors[part]
      m, v = moments[part]
      if name == "sgd":
        g = g + decay * p
        m = momentum * m + g
        p = p - rate * (g + momentum * m)
      else:
        p = p * (1 - rate * decay)
        m, v = momentum * m + (1 - momentum) * g, 0.999 * v + 0.001 * g**2
        m_hat, v_hat = m / (1 - momentum ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        p = p - rate * m_hat / (np.sqrt(v_hat) + 1e-8)
      expected[part], moments[part] = p, [m, v]
    wrapped = {part: {"kernel": jnp.asarray(g, jnp.float32)} for part, g in grads.items()}
    updates, state = optimizer.update(wrapped, state, params)
    params = optax.apply_updates(params, updates)
    for part, value in expected.items():
      np.testing.assert_allclose(params[part]["kernel"], value, rtol=1e-5)


def test_gradients_are_clipped_by_their_global_norm():
  config = OptimizerConfig(clip_norm=1.0, momentum=0.0, weight_decay=0.0)
  optimizer = make_optimizer(config, lambda step: 1.0)
  params = {"a": {"kernel": jnp.zeros(1)}, "b": {"kernel": jnp.zeros(1)}}
  grads = {"a": {"kernel": jnp.array([30.0])}, "b": {"kernel": jnp.array([40.0])}}
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  assert updates["a"]["kernel"][0] == pytest.approx(-0.6)
  frozen = make_optimizer(config, lambda step: 1.0, frozen="b")
  updates, _ = frozen.update(grads, frozen.init(params), params)
  assert updates["a"]["kernel"][0] == pytest.approx(-1.0)  # b does not count


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_frozen_parts_get_no_update_and_the_state_keeps_its_structure(name):
  config = OptimizerConfig(name=name)
  params = {part: {"kernel": jnp.ones(2), "bias": jnp.ones(2)} for part in ("backbone", "head")}
  grads = jax.tree.map(jnp.ones_like, params)
  free = make_optimizer(config, lambda step: 0.1)
  frozen = make_optimizer(config, lambda step: 0.1, frozen="backbone")
  assert jax.tree.structure(free.init(params)) == jax.tree.structure(frozen.init(params))

  state = frozen.init(params)
  updates, state = frozen.update(grads, state, params)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates["backbone"]))
  assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(updates["head"]))
  momenta = [x for x in jax.tree.leaves(state) if x.shape == (2,)]
  assert sum(np.any(x) for x in momenta) * 2 == len(momenta)  # only those of the head

  # Momentum from before freezing causes no update either.
  _, state = free.update(grads, free.init(params), params)
  updates, _ = frozen.update(grads, state, params)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates["backbone"]))


@pytest.fixture(scope="module")
def network():
  """Parameter shapes of the full network, and the released name of each."""
  model = create_model("fer_yolo_mamba", num_classes=7, size="s")
  image = jnp.zeros((1, 32, 32, 3))
  init = lambda key: model.init(key, image, train=False)  # noqa: E731
  params = jax.eval_shape(init, jax.random.key(0))["params"]
  rename = released_names.table_of(model)
  return params, {path: rename(("params", *path)) for path in flatten_dict(params)}


def test_released_rule_equals_the_released_program(golden, network):
  params, names = network
  groups = {
    entry["name"]: entry["upstream_optimizer_group"]
    for entry in golden.manifest["params"]
    if entry["kind"] == "param"
  }
  rule = decay_rules("fer_yolo_mamba")["released"]
  decays, frozen = (
    flatten_dict(decay_mask(params, rule)),
    flatten_dict(frozen_mask(params, rule, "none")),
  )
  assert len(names) == len(groups)
  for path, name in names.items():
    assert decays[path] == (groups[name] == DECAYED), name
    assert frozen[path] == (groups[name] is NOT_TRAINED), name


def test_default_rule_decays_only_matrices(network):
  params, _ = network
  decays = flatten_dict(decay_mask(params, DECAY_RULES["kernels"]))
  undecayed_matrices = {
    path[-1] for path, leaf in flatten_dict(params).items() if leaf.ndim > 1 and not decays[path]
  }
  assert undecayed_matrices == {"A_log", "dt_proj_bias", "D"}
  decayed = {path[-1] for path, yes in decays.items() if yes}
  assert decayed == {"kernel", "x_proj_weight", "dt_proj_weight"}
  assert not any(flatten_dict(frozen_mask(params, DECAY_RULES["kernels"], "none")).values())


def test_frozen_mask_covers_whole_parts(network):
  params, _ = network
  frozen = flatten_dict(frozen_mask(params, DECAY_RULES["kernels"], "backbone+neck"))
  assert {path[0] for path, yes in frozen.items() if yes} == {"backbone", "neck"}
  assert {path[0] for path, yes in frozen.items() if not yes} == {"head"}


def test_decay_rule_of_another_network_is_refused():
  config = OptimizerConfig(decay="released")
  with pytest.raises(ValueError, match=r"optimizer.decay is 'released'; known: kernels, all$"):
    make_optimizer(config, lambda step: 0.1, rules=decay_rules("emonext"))
