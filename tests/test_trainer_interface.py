"""The part of transformers' Trainer that SVTRv2Trainer relies on, in the installed version."""

import inspect
import re

import pytest
from transformers import Trainer

from svtrv2_hf.training.trainer import PRIVATE_ATTRIBUTES, PRIVATE_METHODS, SVTRv2Trainer


OWN = [cls for cls in SVTRv2Trainer.__mro__ if cls.__module__.startswith("svtrv2_hf")]
OVERRIDDEN = sorted(
    {
        name
        for cls in OWN
        for name in vars(cls)
        if inspect.isfunction(getattr(Trainer, name, None)) and name != "__init__"
    }
)


@pytest.mark.parametrize("name", PRIVATE_METHODS)
def test_private_method_has_the_expected_parameters(name):
    assert tuple(inspect.signature(getattr(Trainer, name)).parameters) == ("self", *PRIVATE_METHODS[name])


@pytest.mark.parametrize("name", PRIVATE_ATTRIBUTES)
def test_private_attribute_is_used_by_transformers(name):
    assert re.search(rf"\bself\.{name}\b", inspect.getsource(Trainer))


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_override_accepts_all_arguments_of_transformers(name):
    parameters = list(inspect.signature(getattr(Trainer, name)).parameters)
    own = inspect.signature(getattr(SVTRv2Trainer, name))
    own.bind(*parameters)
    own.bind("self", **dict.fromkeys(parameters[1:]))


def test_all_private_names_are_listed():
    sources = "".join(inspect.getsource(inspect.getmodule(cls)) for cls in OWN)
    used = set(re.findall(r"(?:self|super\(\))\.(_(?!_)\w+)", sources)) | {
        name for name in OVERRIDDEN if name[0] == "_"
    }
    of_transformers = {
        name for name in used if hasattr(Trainer, name) or re.search(rf"self\.{name}\b", inspect.getsource(Trainer))
    }
    assert of_transformers == {*PRIVATE_METHODS, *PRIVATE_ATTRIBUTES}
