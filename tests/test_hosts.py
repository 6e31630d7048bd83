import jax
import pytest

from ferjax.hosts import Hosts, OtherHostError, join


def test_shares_are_consecutive_and_complete():
  for count in (1, 3, 4, 7):
    shares = [Hosts(i, count).share(range(10)) for i in range(count)]
    assert [x for share in shares for x in share] == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
  assert [list(Hosts(i, 3).share("ab")) for i in range(3)] == [[], ["a"], ["b"]]


def test_an_error_is_told_to_the_others():
  told = []
  hosts = Hosts(0, 2, lambda flag: told.append(flag) or flag)
  with pytest.raises(ZeroDivisionError), hosts.together():
    raise ZeroDivisionError
  with hosts.together():
    pass
  assert told == [True, False]


def test_an_error_of_another_host_ends_this_one():
  told = []
  hosts = Hosts(1, 2, lambda flag: told.append(flag) or True)
  with pytest.raises(OtherHostError, match="another host ended with an error"), hosts.together():
    hosts.wait()
  assert told == [False]  # told once: the other host has ended


@pytest.fixture
def connect(monkeypatch):
  """The arguments of `jax.distributed.initialize`, which is not called."""
  given = []
  monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments: given.append(arguments))
  jax_names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
  for name in (*jax_names, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"):
    monkeypatch.delenv(name, raising=False)
  return given


def test_hosts_are_given_detected_or_in_the_environment(connect, monkeypatch):
  join("here:1", 4, 2)
  join()
  monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "8")
  monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "7")
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "job-0.job:3389")
  join()
  monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
  monkeypatch.setenv("JAX_PROCESS_ID", "0")
  assert join() == Hosts(0, 1, join().any)  # of this process
  assert connect[:4] == [
    ("here:1", 4, 2),
    (None, None, None),
    ("job-0.job:3389", 8, 7),
    ("job-0.job:3389", 4, 0),
  ]


def test_wrong_addresses(connect, monkeypatch):
  with pytest.raises(ValueError, match=r"\('here:1', None, None\); give all three, or none"):
    join("here:1")
  monkeypatch.setenv("JAX_PROCESS_ID", "one")
  with pytest.raises(ValueError, match="JAX_PROCESS_ID is 'one'; expected a whole number"):
    join()
  assert not connect


@pytest.mark.parametrize(
  ("error", "kind", "message"),
  [
    (ValueError("Number of processes"), ValueError, "cannot be found .*Number.*--coordinator"),
    (RuntimeError("deadline"), ConnectionError, "did not connect to here:1 .*same number of hosts"),
  ],
)
def test_errors_name_the_fix(connect, monkeypatch, error, kind, message):
  def fail(*_):
    raise error

  monkeypatch.setattr(jax.distributed, "initialize", fail)
  with pytest.raises(kind, match=message):
    join("here:1", 2, 0)
