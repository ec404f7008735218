"""profilemate: what vLLM's CUDA graphs and KV cache really did.

Importing this package loads nothing else: not pandas, not torch, not vLLM. The parts are

* `profilemate.schema`, the vocabulary of events, shared by both sides;
* `profilemate.annotate`, what runs inside vLLM;
* `profilemate.parse`, what reads recordings afterwards.
"""

__version__ = "0.1.0"
