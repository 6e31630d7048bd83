"""The networks' counterparts in PyTorch, as its users write them: eager, float32.

A peer is a module of this package with

  DESCRIPTION  a few words for the table
  VARIANTS     names of ways to run it, such as memory layouts; the fastest one is compared
  forward(variant, batch_size) -> run
  step(variant, batch_size) -> run

Both functions build the network at the size of `programs.IMAGE_SIZES` with random weights and
inputs, and return a function without arguments: `run()` does one inference, or one training step
(loss, gradient, and an update by `torch.optim.AdamW`), and returns when it is done. Only the
process that runs a peer imports its module. Add it to `PEERS`.
"""

# Module of this package -> the network of ferjax that it is compared with.
PEERS = {
  "convnext": "emonext",
  "fermam": "fermam",
  "fer_yolo_mamba": "fer_yolo_mamba",
  "fer_yolo_mamba_no_scan": "fer_yolo_mamba",
}
