"""A bias on image logits: what is recorded of a steered answer is the attention that SDPA had."""

import pytest
import torch

from adapt.attention import bias
from adapt.attention.capture import Call
from adapt.generation.settings import SteerConfig
from adapt.generation.steer import DecodeObserver
from tests.generation.test_answer import generate, prompt, windowed

START, STEPS, IMAGE = 12, 40, torch.tensor([3, 4, 5, 6])


class Spy:
    """Every call of a generation as eager attention computes it, with the mask that SDPA was given:
    for each layer and step the map, and the attention to the answer so far.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {0: [], 1: []}
        true = Call.attend

        def attend(call: Call, mask: torch.Tensor | None = None) -> torch.Tensor:
            self._look(call, call.mask if mask is None else mask)
            return true(call, mask)

        monkeypatch.setattr(Call, "attend", attend)

    def _look(self, call: Call, mask: torch.Tensor | None) -> None:
        steps, keys = self.seen[call.layer], call.attended_keys().repeat_interleave(2, 1)
        logits = call.query_BHSD[:, :, -1:] @ keys.transpose(2, 3) * call.scaling
        if mask is not None:
            last = mask[:, :, -1:, : keys.shape[2]]
            is_bool = last.dtype == torch.bool
            logits = logits.masked_fill(~last, -torch.inf) if is_bool else logits + last
        p_BS = logits.softmax(-1).mean(1)[:, 0]
        dropped = max(START + len(steps) - keys.shape[2], 0)
        there = IMAGE[dropped <= IMAGE] - dropped
        map_BN = torch.zeros(2, 4)
        map_BN[:, dropped <= IMAGE] = p_BS[:, there]
        steps.append((map_BN, p_BS[:, max(START - dropped, 0) :].sum(-1)))

    def stacked(self, of: int) -> torch.Tensor:
        layers = [torch.stack([step[of] for step in self.seen[n]], 1) for n in (0, 1)]
        return torch.stack(layers, 2)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("padded", [False, True], ids=["even", "padded"])
@pytest.mark.parametrize(("window", "layers"), [(13, "all"), (64, "all"), (64, (1,)), (6, (0,))])
@pytest.mark.parametrize("most", [1, 2**20], ids=["apart", "together"])
def test_what_is_recorded_is_what_sdpa_had(most, window, layers, padded, cache, monkeypatch):
    monkeypatch.setattr(bias, "IN_FLIGHT", most)
    monkeypatch.setattr(bias, "ROOM", 8)
    model, (inputs, layout) = windowed(window), prompt(padded)
    rule = SteerConfig(alpha=2.0, tau=1.0, trigger="mass", anchor_share=0.5, layers=layers)
    observer, spy = DecodeObserver(layout, anchor_tokens=5, steer=rule), Spy(monkeypatch)
    generate(model, inputs, observer, max_new_tokens=STEPS, cache_implementation=cache)
    seen, close = observer.attention(torch.ones(2, STEPS, dtype=torch.bool)), {"atol": 1e-6}
    maps_BTLN, prelim_BTL = spy.stacked(0), spy.stacked(1)
    torch.testing.assert_close(seen.heat_BTN, maps_BTLN.mean(2), rtol=1e-4, **close)
    torch.testing.assert_close(seen.mass_BTL, maps_BTLN.sum(-1), rtol=1e-4, **close)
    torch.testing.assert_close(seen.prelim_BTL, prelim_BTL, rtol=1e-4, **close)
    steered = [0, 1] if layers == "all" else [*layers]
    assert not seen.fired_BTL[:, :5].any(), "while the anchor is read"
    assert not seen.fired_BTL[..., [n for n in (0, 1) if n not in steered]].any()
    if window > 6:
        assert seen.fired_BTL[:, 5:, steered].any(), "it is steered somewhere"
