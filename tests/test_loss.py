"""The CTC loss and its scaling."""

import itertools

import pytest
import torch

from svtrv2_hf import SVTRv2ForCTC
from svtrv2_hf.modeling_svtrv2 import ctc_loss


def likelihood_by_enumeration(log_probs, label, blank):
    """Sum the probabilities of all paths that collapse to the label."""
    total = 0.0
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        collapsed = [id for id, _ in itertools.groupby(path) if id != blank]
        if collapsed == list(label):
            total += log_probs[range(len(path)), list(path)].sum().exp().item()
    return total


@pytest.mark.parametrize("label", [[], [1], [1, 2], [1, 1], [2, 1, 2]])
@pytest.mark.parametrize("blank", [0, 3])
def test_ctc_loss_equals_sum_over_all_paths(label, blank):
    if blank == 3:
        label = [id - 1 for id in label]
    logits = torch.randn(1, 5, 4, dtype=torch.float64)
    labels = torch.tensor([[*label, -100, -100]])
    losses, unalignable = ctc_loss(logits, torch.tensor([5]), labels, blank)
    expected = likelihood_by_enumeration(logits[0].log_softmax(-1), label, blank)
    assert losses.item() == pytest.approx(-torch.tensor(expected).log().item(), rel=1e-5)
    assert not unalignable.item()


def test_ctc_loss_is_not_divided_by_label_length():
    logits = torch.zeros(1, 6, 3)
    short, _ = ctc_loss(logits, torch.tensor([6]), torch.tensor([[1]]), 0)
    torch_mean = torch.nn.functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1), torch.tensor([[1, 2]]), torch.tensor([6]), torch.tensor([2])
    )
    long, _ = ctc_loss(logits, torch.tensor([6]), torch.tensor([[1, 2]]), 0)
    assert long.item() == pytest.approx(2 * torch_mean.item())
    assert short.item() != long.item()


def test_label_padding_may_be_minus_100_or_blank_at_any_position():
    logits = torch.randn(3, 8, 5)
    labels = torch.tensor([[1, 1, 2, -100], [1, 1, 2, 0], [-100, 1, 1, 2]])
    losses, _ = ctc_loss(logits[:1].expand(3, -1, -1), torch.tensor([8, 8, 8]), labels, 0)
    torch.testing.assert_close(losses, losses[:1].expand(3))


def test_padding_frames_are_ignored():
    logits = torch.randn(1, 5, 4)
    padded = torch.cat([logits, torch.randn(1, 3, 4)], dim=1)
    labels = torch.tensor([[1, 2]])
    expected, _ = ctc_loss(logits, torch.tensor([5]), labels, 0)
    torch.testing.assert_close(ctc_loss(padded, torch.tensor([5]), labels, 0)[0], expected)


def test_unalignable_labels_are_counted_with_zero_loss():
    logits = torch.randn(4, 3, 5, requires_grad=True)
    labels = torch.tensor([[1, 2, 3, 4], [1, 1, -100, -100], [1, 1, 1, -100], [1, 2, 3, -100]])
    losses, unalignable = ctc_loss(logits, torch.full((4,), 3), labels, 0)
    assert unalignable.tolist() == [True, False, True, False]
    assert (losses == 0).tolist() == unalignable.tolist()
    losses.sum().backward()
    assert logits.grad.isfinite().all()


def test_model_reports_number_of_unalignable_labels(model):
    output = model(torch.randn(2, 3, 32, 16), labels=torch.tensor([[1, 2, 3, 4, 5], [1, 2, -100, -100, -100]]))
    assert output.num_unalignable.item() == 1


def test_label_id_outside_vocabulary_raises(model):
    with pytest.raises(ValueError, match=r"id 49, but the model has only 49 classes"):
        model(torch.randn(1, 3, 32, 64), labels=torch.tensor([[49]]))


def test_empty_labels_train_toward_blank(model):
    for labels in (torch.full((2, 3), -100), torch.zeros((2, 0), dtype=torch.long)):
        output = model(torch.randn(2, 3, 32, 32), labels=labels)
        expected = -output.logits.log_softmax(-1)[..., 0].sum(-1).mean()
        torch.testing.assert_close(output.loss, expected)


def test_loss_is_float32_under_autocast(config):
    model = SVTRv2ForCTC(config).eval()
    pixel_values, labels = torch.randn(2, 3, 32, 64), torch.tensor([[1, 2], [3, 3]])
    with torch.autocast("cpu", torch.bfloat16):
        output = model(pixel_values, labels=labels)
    assert output.logits.dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32
    in_float32, _ = ctc_loss(output.logits.float(), output.logits_lengths, labels, 0)
    torch.testing.assert_close(output.loss, in_float32.mean())


@pytest.mark.parametrize("use_guidance", [False, True])
def test_losses_of_partial_batches_sum_to_batch_loss(config, use_guidance):
    """Divided by the number of samples of the whole batch, unequal parts sum to the mean."""
    config.use_guidance = use_guidance
    model = SVTRv2ForCTC(config).eval()
    pixel_values, labels = torch.randn(5, 3, 32, 64), torch.randint(1, 40, (5, 4))
    whole = model(pixel_values, labels=labels).loss
    parts = [model(pixel_values[part], labels=labels[part], num_items_in_batch=5).loss for part in ([0, 1, 2], [3, 4])]
    torch.testing.assert_close(sum(parts), whole)


def test_model_does_not_accept_loss_kwargs():
    assert SVTRv2ForCTC.accepts_loss_kwargs is False


def test_contexts_are_corrupted_only_in_training(config):
    config.use_guidance = True
    guidance = SVTRv2ForCTC(config).guidance
    labels = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [1, 2, -100, -100, -100, -100, -100]])
    clean = guidance.eval().contexts(labels)
    for (contexts, targets), (noisy, noisy_targets) in zip(clean, guidance.train().contexts(labels), strict=True):
        assert contexts.shape == (2, 8, 5)
        assert noisy.shape == (2, 11, 5)  # three complete contexts of the first label, twice
        assert torch.equal(noisy[:, :5], contexts[:, :5])
        for copies in (noisy[0, 5:8], noisy[0, 8:]):
            changed = (copies != contexts[0, 5:]).sum(-1)
            assert (changed <= 1).all()
        assert ((noisy[0, 5:] >= 1) & (noisy[0, 5:] < config.vocab_size)).all()
        assert torch.equal(noisy_targets[:, 8:], targets[:, 5:])
        assert targets[1].tolist()[2:] == [0, -100, -100, -100, -100, -100]


def test_corruption_never_inserts_the_blank(config):
    from svtrv2_hf.guidance_svtrv2 import corrupt

    contexts, targets = torch.full((400, 6, 5), 3), torch.ones(400, 6, dtype=torch.long)
    corrupted, _ = corrupt(contexts, targets, blank=1, vocab_size=4)
    assert set(corrupted[:, 5:].unique().tolist()) == {0, 2, 3}
