"""Memory from a model's shape: the parameter counts are those of the real models."""

import pytest
from transformers import AutoModelForCausalLM

from reference.engines.memory import SHAPES, activation_bytes, describe_memory, shape_of, training_bytes, whole_bytes
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
