"""Memory from a model's shape: the parameter counts are those of the real models."""

import json

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from reference.engines.memory import (
    SHAPES,
    activation_bytes,
    describe_memory,
    shape_of,
    sizes_of,
    training_bytes,
    whole_bytes,
)
from reference.offline.tiny_model import BASE_CHECKPOINT


@pytest.mark.parametrize(
    ("path", "millions"),
    [("Qwen/Qwen2.5-0.5B-Instruct", 494.03), ("meta-llama/Llama-3.2-1B-Instruct", 1235.81)],
)
def test_the_known_shapes_have_the_models_sizes(path, millions):
    """Published: 0.49 and 1.24 billion parameters."""
    assert SHAPES[path].parameters / 1e6 == pytest.approx(millions, rel=1e-3)
    assert shape_of(path) is SHAPES[path]


def test_a_folders_shape_has_the_size_of_its_weights():
    model = AutoModelForCausalLM.from_pretrained(BASE_CHECKPOINT)
    real = sum(weight.numel() for weight in model.parameters())
    assert shape_of(str(BASE_CHECKPOINT)).parameters == pytest.approx(real, rel=0.01)


def test_a_head_of_its_own_counts(tmp_path):
    config = json.loads((BASE_CHECKPOINT / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    real = sum(weight.numel() for weight in model.parameters())
    assert shape_of(str(tmp_path)).parameters == pytest.approx(real, rel=0.01)
    assert real - shape_of(str(BASE_CHECKPOINT)).parameters > 0.9 * config["vocab_size"] * config["hidden_size"]


@pytest.mark.parametrize("name", ["intermediate_size", "num_key_value_heads"])
def test_a_model_of_another_family_is_named_with_the_size_that_it_has_not(tmp_path, name):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 2}')
    assert sizes_of(tmp_path, "num_hidden_layers", "max_position_embeddings") == [2, 1024]  # under names of its own
    with pytest.raises(ValueError, match=f"a gpt2, has no size of this name .*'{name}'.*give --model.path"):
        sizes_of(tmp_path, name)
    with pytest.raises(ValueError, match="a gpt2, has no size of this name"):
        shape_of(str(tmp_path))


def test_a_size_that_is_no_number_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "hidden_size": "wide"}')
    with pytest.raises(ValueError, match="(?s)cannot read the configuration .*hidden_size"):
        shape_of(str(tmp_path))


def test_a_model_that_is_not_here_has_no_shape_and_a_damaged_folder_is_named(tmp_path):
    assert shape_of("owner/model") is None
    with pytest.raises(ValueError, match="cannot read the configuration"):
        shape_of(str(tmp_path))


def test_training_is_sharded_and_the_reference_is_not():
    shape = SHAPES["Qwen/Qwen2.5-0.5B-Instruct"]
    assert training_bytes(shape, 1) == 16 * shape.parameters == 4 * training_bytes(shape, 4)
    assert whole_bytes(shape) == 4 * shape.parameters
    assert activation_bytes(shape, 1536, checkpointed=True) < activation_bytes(shape, 1536, checkpointed=False)
    assert activation_bytes(shape, 4096, False) > activation_bytes(shape, 1536, False)


def test_the_table_has_a_row_for_each_number_of_processes():
    lines = describe_memory(SHAPES["Qwen/Qwen2.5-0.5B-Instruct"], 1536, 4096, checkpointed=False).split("\n")
    assert [line.split()[0] for line in lines] == ["processes", "1", "2", "4", "8"]
    assert lines[1].split()[1:4:2] == ["7.4", "1.8"] and lines[3].split()[1:4:2] == ["1.8", "1.8"]
