"""One optimizer step at a time: resumed as if never interrupted, and never on a gradient that is not finite."""

import os

import pytest
import torch

from reference.engines.batches import Turn
from reference.engines.chat import Chat
from reference.engines.distributed import Process
from reference.engines.learner import Learner, frozen_policy

CPU = torch.device("cpu")
OPTIMIZER = {"betas": (0.9, 0.95), "weight_decay": 0.1, "max_grad_norm": 1.0}


def learner_of(checkpoint, **changes):
    return Learner(checkpoint, Process(), **{**OPTIMIZER, "lr": 1e-3, **changes})


def loss_of(learner, seed):
    """Negative log-likelihood of a row of random words: another one for each seed."""
    ids_BT = torch.randint(3, 768, (2, 20), generator=torch.Generator().manual_seed(seed))
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[:, 0] = 0
    return -learner.policy(ids_BT, mask_BT).logprobs.mean()


def steps(learner, seeds):
    return [step(learner, [seed], lr_scale=1 / (seed + 1)) for seed in seeds]


def step(learner, seeds, **options):
    """One optimizer step on a turn for each seed; the norm of its gradient."""
    turns = [Turn((seed,)) for seed in seeds]
    return learner.step(turns, lambda turn: (loss_of(learner, turn.rows[0]), {}), **options)["grad_norm"]


def weights(learner):
    return [weight.detach().clone() for weight in learner.policy.parameters()]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_resumed_learner_goes_on_bit_for_bit(random_checkpoint, tmp_path):
    whole = learner_of(random_checkpoint())
    norms = steps(whole, range(6))

    first = learner_of(random_checkpoint())
    steps(first, range(3))
    first.save_state(tmp_path / "stage" / "state.pt", {"steps": 3})
    steps(first, [99])  # what was done after the last saved state is lost

    second = learner_of(random_checkpoint())
    assert second.load_state(tmp_path / "stage" / "state.pt") == {"steps": 3}
    assert steps(second, range(3, 6)) == norms[3:]
    assert equal(weights(second), weights(whole))


def test_without_a_saved_state_it_begins_anew(random_checkpoint, tmp_path):
    learner = learner_of(random_checkpoint())
    before = weights(learner)
    assert learner.load_state(tmp_path / "state.pt") is None
    assert equal(weights(learner), before)


def test_a_save_that_fails_leaves_the_state_before(random_checkpoint, tmp_path, monkeypatch):
    learner, path = learner_of(random_checkpoint()), tmp_path / "state.pt"
    learner.save_state(path, {"steps": 1})

    def half_a_save(state, file):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", half_a_save)
    with pytest.raises(OSError, match="No space left"):
        learner.save_state(path, {"steps": 2})
    assert learner.load_state(path) == {"steps": 1}


def test_a_state_is_on_disk_before_it_takes_the_place_of_the_last(random_checkpoint, tmp_path, monkeypatch):
    learner, path = learner_of(random_checkpoint()), tmp_path / "state.pt"
    learner.save_state(path, {"steps": 1})
    before, seen = path.read_bytes(), []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append((path.read_bytes(), os.fstat(file).st_ino)))
    learner.save_state(path, {"steps": 2})
    assert seen == [(before, path.stat().st_ino)]


DAMAGE = {
    "half": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "without its end": lambda whole: whole[:-30],
    "with a hole": lambda whole: whole[:64] + b"\0" * 200 + whole[264:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_named_with_the_way_on(random_checkpoint, tmp_path, damage):
    learner, path = learner_of(random_checkpoint()), tmp_path / "state.pt"
    steps(learner, [0])
    learner.save_state(path, {"steps": 1})
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(ValueError, match="state.pt cannot be taken up .*delete it, and its stage") as caught:
        learner.load_state(path)
    assert "\n" not in str(caught.value)


def test_a_step_of_1e_6_moves_the_weights(random_checkpoint):
    """Table 6's learning rate: in bfloat16 such a step is rounded away."""
    learner = learner_of(random_checkpoint(), lr=1e-6, weight_decay=0.0)
    before = weights(learner)
    assert all(weight.dtype == torch.float32 for weight in before)
    steps(learner, [0])
    moved = sum((a != b).sum().item() for a, b in zip(weights(learner), before, strict=True))
    assert moved > 0.99 * sum(weight.numel() for weight in before)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_the_weights_move(random_checkpoint, factor):
    learner = learner_of(random_checkpoint())
    steps(learner, [0])
    before = weights(learner)
    with pytest.raises(ValueError, match="gradient norm is (nan|inf)"):
        learner.step([Turn((1,))], lambda turn: (loss_of(learner, turn.rows[0]) * factor, {}))
    assert equal(weights(learner), before)
    clean = learner_of(random_checkpoint())
    steps(clean, [0, 1])
    steps(learner, [1])  # and the optimizer remembers nothing of it
    assert equal(weights(learner), weights(clean))


def test_micro_batches_add_up_and_the_norm_is_that_before_clipping(random_checkpoint):
    learner = learner_of(random_checkpoint(), max_grad_norm=1e-3)
    loss_of(learner, 0).backward()
    loss_of(learner, 1).backward()
    expected = torch.cat([weight.grad.flatten() for weight in learner.policy.parameters()])
    norm = step(learner, [0, 1])
    assert norm == pytest.approx(expected.norm().item(), rel=1e-5)
    clipped = torch.cat([weight.grad.flatten() for weight in learner.policy.parameters()])
    assert clipped.norm().item() == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(clipped, expected * 1e-3 / expected.norm(), rtol=1e-2, atol=1e-8)


def test_a_step_is_that_of_adamw(random_checkpoint):
    """lr * lr_scale is the rate; weight decay is decoupled; the gradient is clipped first."""
    learner = learner_of(random_checkpoint(), max_grad_norm=0.5)
    twin = learner_of(random_checkpoint())
    twin_optimizer = torch.optim.AdamW(twin.policy.parameters(), lr=1e-3 * 0.25, betas=(0.9, 0.95), weight_decay=0.1)
    for seed in (0, 1):
        twin_optimizer.zero_grad()
        loss_of(twin, seed).backward()
        torch.nn.utils.clip_grad_norm_(twin.policy.parameters(), 0.5)
        twin_optimizer.step()
        step(learner, [seed], lr_scale=0.25)
    assert equal(weights(learner), weights(twin))


def test_a_saved_checkpoint_is_read_again_with_its_template_and_end_ids(random_checkpoint, chat, tmp_path):
    learner = learner_of(random_checkpoint())
    steps(learner, [0])
    path = tmp_path / "checkpoint"
    learner.save_checkpoint(path, Chat(chat.tokenizer, [2, 0]))
    assert equal(weights(learner_of(path)), weights(learner))
    again = Chat.from_checkpoint(path)
    assert again.end_ids == (2, 0) and again.tokenizer.chat_template == chat.tokenizer.chat_template
    assert list(path.glob("*.safetensors"))
    learner.save_checkpoint(path, chat)  # a stage that was killed before its receipt saves again
    assert Chat.from_checkpoint(path).end_ids == chat.end_ids
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_a_disk_that_is_full_at_the_tokenizer_is_told_as_such(random_checkpoint, chat, tmp_path):
    (tmp_path / "checkpoint.unfinished").mkdir()
    (tmp_path / "checkpoint.unfinished" / "tokenizer.json").symlink_to("/dev/full")
    with pytest.raises(OSError, match="cannot write .*checkpoint: No space left on device"):
        learner_of(random_checkpoint()).save_checkpoint(tmp_path / "checkpoint", chat)
    assert not (tmp_path / "checkpoint").exists()


def test_the_reference_never_moves(random_checkpoint):
    policy = frozen_policy(random_checkpoint(), CPU)
    assert not any(weight.requires_grad for weight in policy.parameters())
    assert not policy.training
