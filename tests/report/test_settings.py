"""The configuration as differences from Tables 5 and 6."""

import json
from dataclasses import replace

from reference.config import PRESETS, TINY, Config, SFTConfig, flatten
from reference.report.settings import Setting, differences


def as_file(config):
    """Settings as config.json has them."""
    return json.loads(json.dumps(flatten(config)))


def test_the_defaults_differ_in_nothing():
    assert differences(as_file(Config())) == []


def test_a_changed_setting_is_named_with_its_row_and_both_values():
    changed = replace(Config(), seed=3, iterations=4, sft=SFTConfig(lr=1e-5, betas=(0.8, 0.9)))
    assert differences(as_file(changed)) == [
        Setting("Table 5", "Learning rate", "sft.lr", 2e-5, 1e-5),
        Setting("Table 5", "Adam betas", "sft.betas", [0.9, 0.95], [0.8, 0.9]),
        Setting("Table 5", "Seed", "seed", 1111, 3),
        Setting("", "", "iterations", 2, 4),
    ]


def test_the_presets_differences_are_those_of_their_fields():
    for preset in PRESETS.values():
        settings, defaults = as_file(preset), as_file(Config())
        assert {one.name for one in differences(settings)} == {n for n in settings if settings[n] != defaults[n]}


def test_a_setting_of_another_version_is_left_out():
    settings = as_file(TINY)
    del settings["sft.lr"]
    assert "sft.lr" not in {one.name for one in differences(settings)}
