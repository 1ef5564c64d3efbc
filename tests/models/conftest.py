"""Tests of models that run with each architecture name this fixture."""

import pytest

from tests.models import architectures


@pytest.fixture(params=architectures.NAMES, scope="module")
def architecture(request):
    architectures.current = request.param
    return request.param
