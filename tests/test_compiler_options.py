import jax
import jax.numpy as jnp
import pytest

from ferjax import compiler_options as module


@pytest.fixture
def compiler_options():
  module.compiler_options.cache_clear()
  yield module.compiler_options
  module.compiler_options.cache_clear()


def test_this_machine_accepts_them(compiler_options):
  options = compiler_options(remat=True)
  assert options.items() >= {**(compiler_options() or {}), **module.REMAT}.items()
  assert jax.jit(lambda x: x + 1, compiler_options=options)(jnp.float32(1)) == 2
  assert jax.jit(lambda x: x + 1, compiler_options=compiler_options())(jnp.float32(1)) == 2


@pytest.mark.parametrize(("backend", "machine"), [("gpu", "x86_64"), ("cpu", "aarch64")])
def test_other_processors_have_the_defaults(compiler_options, monkeypatch, backend, machine):
  monkeypatch.setattr(module.jax, "default_backend", lambda: backend)
  monkeypatch.setattr(module.platform, "machine", lambda: machine)
  assert compiler_options() is None


def test_an_unknown_option_is_left_out(compiler_options, monkeypatch):
  monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
  known = {"xla_cpu_prefer_vector_width": "256"}
  monkeypatch.setattr(module, "X86", {"xla_cpu_no_such_option": "1", **known})
  assert compiler_options() == known


def test_without_a_known_option_the_defaults_apply(compiler_options, monkeypatch):
  monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
  monkeypatch.setattr(module, "X86", {"xla_cpu_no_such_option": "1"})
  assert compiler_options() is None
