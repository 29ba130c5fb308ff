"""A small untrained model with its tokenizer, and rows of it."""

from __future__ import annotations

import pytest
import torch

from wardround.client.bases.build_speech import SpeechRecipe, new_speech_model
from wardround.client.bases.making import byte_level_tokenizer
from wardround.client.tasks.spectron.config import SpectronTaskConfig
from wardround.client.tasks.spectron.rows import collate_exchanges, model_rows


@pytest.fixture(scope="session")
def tokenizer():
    return byte_level_tokenizer([], 259)


@pytest.fixture
def model(tokenizer):
    recipe = SpeechRecipe(bins=16, encoder_width=16, encoder_layers=1, width=32, layers=2, heads=2)
    generator = torch.Generator().manual_seed(5)
    return new_speech_model(recipe, tokenizer, (-7.0, 3.0), generator).double().eval()


@pytest.fixture
def rows_of(model, tokenizer):
    """Rows of records, each a unit of its own."""

    def make(records):
        batch = collate_exchanges([[record] for record in records], tokenizer, SpectronTaskConfig())
        return model_rows(model, batch)

    return make


@pytest.fixture(scope="session")
def records(case):
    return [record for unit in case("spectron").units for record in unit]
