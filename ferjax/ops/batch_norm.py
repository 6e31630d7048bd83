"""Batch normalisation by the statistics of the batch (Ioffe & Szegedy 2015)."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize_batch(
  x: Float[Array, "n c"], scale: Float[Array, "c"], bias: Float[Array, "c"], epsilon: float
) -> tuple[Float[Array, "n c"], Float[Array, "c"], Float[Array, "c"]]:
  """Normalises each channel over all rows, then scales and shifts it.

  The variance is the mean of squared deviations; E[x^2] - E[x]^2 loses precision.

  The custom gradient stores nothing but the input and its statistics, and reads the input and the
  output's gradient twice. Autodiff also stores the deviations, and three partial gradients.

  Returns:
    The normalised rows, and the mean and biased variance of each channel, which have no gradient;
    all are at least float32.
  """
  x = _at_least_float32(x)
  mean = x.mean(0)
  var = jnp.square(x - mean[None]).mean(0)
  return normalize(x, mean, var, scale, bias, epsilon), mean, var


def normalize(
  x: Float[Array, "*s c"],
  mean: Float[Array, "c"],
  var: Float[Array, "c"],
  scale: Float[Array, "c"],
  bias: Float[Array, "c"],
  epsilon: float,
) -> Float[Array, "*s c"]:
  """(x - mean) / sqrt(var + epsilon) * scale + bias, with given statistics."""
  factor = lax.rsqrt(var + epsilon) * scale
  mean, factor, bias = (a.reshape((1,) * (x.ndim - 1) + a.shape) for a in (mean, factor, bias))
  return (x - mean) * factor + bias


def _forward(x, scale, bias, epsilon):
  y, mean, var = normalize_batch(x, scale, bias, epsilon)
  return (y, mean, var), (x, scale, mean, var)


def _backward(epsilon, residuals, cotangents):
  x, scale, mean, var = residuals
  g = cotangents[0]
  deviation = _at_least_float32(x) - mean[None]
  inverse = lax.rsqrt(var + epsilon)
  bias_gradient = g.sum(0)
  product = (g * deviation).sum(0)
  slope = inverse * inverse * product / len(x)
  x_gradient = (inverse * scale)[None] * (
    g - (bias_gradient / len(x))[None] - deviation * slope[None]
  )
  return x_gradient.astype(x.dtype), inverse * product, bias_gradient


normalize_batch.defvjp(_forward, _backward)


def _at_least_float32(x):
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
