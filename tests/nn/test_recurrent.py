"""RNN, LSTM and GRU against PyTorch: outputs, states, gradients of everything."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn

torch = pytest.importorskip("torch")
rng = np.random.default_rng(0)

LAYERS = {
    "RNN(3, 4)": (5, 2, 3),
    "RNN(3, 4, 2, nonlinearity='relu', batch_first=True)": (2, 5, 3),
    "LSTM(3, 4, 2, bidirectional=True)": (5, 2, 3),
    "LSTM(3, 5, proj_size=2)": (4, 2, 3),
    "GRU(3, 4, bias=False, bidirectional=True)": (5, 2, 3),
    "GRU(3, 4)": (5, 3),
}


def draw(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def parts(result):
    out, state = result
    return [out, *(state if isinstance(state, tuple) else (state,))]


def total(results, wrap):
    """A number that depends on every element of every result."""
    weights = [np.cos(np.arange(np.prod(r.shape), dtype=np.float32)) for r in results]
    return sum((r.reshape((-1,)) * wrap(w)).sum() for r, w in zip(results, weights, strict=True))


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_layer_agrees_with_torch(layer, given):
    ours, theirs = eval(f"nn.{layer}"), eval(f"torch.nn.{layer}")
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    x = draw(*LAYERS[layer])
    state = [draw(*p.shape) for p in parts(theirs(torch.tensor(x)))[1:]] if given else []
    variables = [mo.Var(a, requires_grad=True) for a in (x, *state)]
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, *state)]

    def call(module, x, *state):
        return parts(module(x, *([tuple(state)] if len(state) > 1 else state)))

    out, expected = call(ours, *variables), call(theirs, *tensors)
    wanted = [*variables, *ours.parameters()]
    gradients = mo.grad(total(out, mo.array), wanted)
    total(expected, torch.tensor).backward()
    for a, b in zip(out, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)
    for a, b in zip(gradients, [*tensors, *theirs.parameters()], strict=True):
        np.testing.assert_allclose(a.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_gradients_of_a_sequence_are_differentiated():
    def loss(x, weight):
        state = (mo.zeros((1, 2), dtype=mo.float64),)
        weights = (mo.array(np.eye(6, 3)), weight, None, None, None)
        step = nn.functional.recurrent.STEPS["GRU"]
        return (nn.functional.recur(step, x, state, weights)[0] ** 2).sum()

    x, weight = (mo.array(rng.standard_normal(s), dtype=mo.float64) for s in ((3, 1, 3), (6, 2)))
    assert mo.gradcheck(loss, (x, weight))
    slope = mo.value_and_grad(loss, argnums=1)
    assert mo.gradcheck(lambda *a: (slope(*a)[1] ** 2).sum(), (x, weight))


def test_dropout_lies_between_layers_in_training_alone():
    net = nn.LSTM(3, 4, 2, dropout=1.0)
    x = mo.array(draw(3, 2, 3))
    dropped, _ = net(x)
    kept, _ = net.eval()(x)
    again, _ = net(mo.array(draw(3, 2, 3)))
    assert not np.array_equal(kept.numpy(), again.numpy())
    net.train()
    np.testing.assert_array_equal(dropped.numpy(), net(mo.array(draw(3, 2, 3)))[0].numpy())


def test_a_step_under_jit_is_the_plain_step():
    data, target = draw(5, 2, 3), draw(5, 2, 4)

    def losses(compiled):
        mo.manual_seed(0)
        net = nn.LSTM(3, 4)
        optimiser = nn.optim.SGD(net.parameters(), lr=0.1)

        def step(x, y):
            loss = nn.functional.mse_loss(net(x)[0], y)
            optimiser.step(loss)
            return loss

        run = mo.jit(step) if compiled else step
        return [run(mo.array(data), mo.array(target)).item() for _ in range(3)]

    plain = losses(False)
    assert plain[2] < plain[0]
    assert losses(True) == plain


def test_what_does_not_fit_is_refused():
    with pytest.raises(mo.errors.ShapeError, match=r"RNN: x must be \[length, batch, input_size\]"):
        nn.RNN(3, 4)(mo.zeros((3,)))
    with pytest.raises(mo.errors.ShapeError, match=r"GRU: the state must be \[1, 2, 4\], got f32"):
        nn.GRU(3, 4)(mo.zeros((5, 2, 3)), mo.zeros((1, 3, 4)))
    with pytest.raises(ValueError, match="proj_size must be smaller than hidden_size 4"):
        nn.LSTM(3, 4, proj_size=4)
