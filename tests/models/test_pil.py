"""Processor classes that transformers hides without torchvision."""

import sys
from importlib.util import find_spec

import pytest
import transformers

from adapt.models.checkpoint.pil import is_hidden, on_pil

hidden = pytest.mark.skipif(
    find_spec("torchvision") is not None, reason="torchvision is installed: nothing is hidden"
)


@hidden
def test_a_hidden_class_is_read_from_its_module_on_pil():
    assert is_hidden(transformers.PixtralProcessor)
    assert not is_hidden(transformers.LlavaProcessor)
    kind = on_pil("PixtralProcessor")
    assert issubclass(kind, transformers.ProcessorMixin) and kind.__name__ == "PixtralProcessor"
    assert "transformers.models.pixtral.image_processing_pixtral" not in sys.modules


@hidden
def test_what_is_missing_is_named_where_there_is_no_version_for_pil():
    with pytest.raises(ImportError, match="OmDetTurboProcessor requires the Torchvision library"):
        on_pil("OmDetTurboProcessor")
