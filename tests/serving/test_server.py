import dataclasses
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from ferjax.serving.server import bound_socket

SECONDS = 20
HEAD = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"


def _url(address):
  return f"http://{address[0]}:{address[1]}/predict"


def _post(address, image):
  return httpx2.post(_url(address), content=image, timeout=SECONDS, trust_env=False)


def _everything(connection):
  """What arrives until the server closes the connection."""
  received = b""
  while chunk := connection.recv(65536):
    received += chunk
  return received


def test_slow_and_malformed_clients_are_shut_out(serving, connect, predictor, small, encoded):
  limits = dataclasses.replace(small, upload_timeout=0.3)
  with serving(predictor, limits) as (_, address):
    silent, head, body, garbage, hasty = (connect(address) for _ in range(5))
    head.sendall(HEAD[:20])
    body.sendall(HEAD + b"x" * 10)
    garbage.sendall(b"\xff\xfe nonsense\r\n\r\n")
    hasty.sendall(HEAD + b"x" * 10)
    hasty.close()
    assert _post(address, encoded(6)).json()["faces"][0]["score"] == 6
    assert _everything(garbage).startswith(b"HTTP/1.1 400")
    assert _everything(silent) == _everything(head) == b""
    answer = _everything(body)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not arrive within 0.3 s" in answer
    assert _post(address, encoded(7)).json()["faces"][0]["score"] == 7


def test_a_connection_stays_open_for_the_next_request(serving, predictor, small, encoded):
  limits = dataclasses.replace(small, upload_timeout=0.2)
  with serving(predictor, limits) as (_, address), httpx2.Client(trust_env=False) as client:
    # An answer may take longer than a request.
    predictor.gate.clear()
    opener = threading.Timer(0.3, predictor.gate.set)
    opener.start()
    for level in (1, 2):
      response = client.post(_url(address), content=encoded(level), timeout=SECONDS)
      assert response.json()["faces"][0]["score"] == level
    opener.join()


def _is_refused(address):
  try:
    socket.create_connection(address, timeout=SECONDS).close()
  except ConnectionError:  # also reset, if the server closes at this moment
    return True
  return False


def test_stopping_answers_what_has_arrived(serving, connect, predictor, small, encoded):
  with serving(predictor, small) as (server, address), ThreadPoolExecutor(1) as pool:
    idle = connect(address)
    predictor.gate.clear()
    predictor.batches.clear()
    waiting = pool.submit(_post, address, encoded(5))
    end = time.monotonic() + SECONDS
    metrics = f"http://{address[0]}:{address[1]}/metrics"
    while "ferjax_waiting_images 1.0" not in httpx2.get(metrics, trust_env=False).text:
      assert time.monotonic() < end
    server.should_exit = True
    while not _is_refused(address):
      assert time.monotonic() < end
    assert _everything(idle) == b""
    predictor.gate.set()
    assert waiting.result(SECONDS).json()["faces"][0]["score"] == 5


def test_a_bound_socket_refuses_connections():
  with bound_socket("127.0.0.1", 0) as bound:
    address = bound.getsockname()
    assert _is_refused(address)
    bound.listen()
    with pytest.raises(OSError, match=f"127.0.0.1:{address[1]} cannot be used .*; choose another"):
      bound_socket(*address)


@pytest.mark.parametrize("host", ["not a host", "a" * 70, "x..y"])
def test_an_unknown_host(host):
  with pytest.raises(OSError, match=f"the host '{host}' is not known .*; expected a name"):
    bound_socket(host, 1)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range(port):
  with pytest.raises(ValueError, match=f"the port is {port}; expected 0 to 65535"):
    bound_socket("127.0.0.1", port)
