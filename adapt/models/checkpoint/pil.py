"""The class of a processor that transformers hides where torchvision is not installed.

Its own part works on PIL; what its module takes from torchvision's image processor are functions
that work out sizes, and the image processor for PIL has them too. Pixtral's is such a class.
"""

import importlib
import sys
from functools import cache
from typing import Any


def is_hidden(kind: Any) -> bool:
    """Whether transformers has put a placeholder in the place of this class."""
    return bool(getattr(kind, "is_dummy", False))


@cache
def on_pil(name: str) -> Any:
    """The processor class of this name, from its module, on the functions of the PIL version.

    Raises ImportError, which names what is missing, where there is no such version.
    """
    import transformers
    from transformers.utils import requires_backends

    # 1. transformers.models.<family>.processing_<family>, and the two image processors beside it.
    placeholder = getattr(transformers, name)
    home = placeholder.__module__
    package, _, file = home.rpartition(".")
    family = file.removeprefix("processing_")
    hidden = f"{package}.image_processing_{family}"
    try:
        twin = importlib.import_module(f"{package}.image_processing_pil_{family}")
    except ModuleNotFoundError:
        requires_backends(placeholder, placeholder._backends)
        raise
    # 2. While the module is read, one stands in for the other.
    sys.modules[hidden] = twin
    try:
        return getattr(importlib.import_module(home), name)
    finally:
        del sys.modules[hidden]
