"""Attention, encoder layers, embedding and recurrent cells against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import metaop as mo
from metaop import nn

torch = pytest.importorskip("torch")
F, TF = nn.functional, torch.nn.functional


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(ours, theirs, tolerance=1e-5):
    ours = ours.numpy() if isinstance(ours, mo.Var) else ours
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def assert_agree(ours, theirs, arrays, modules=None, tolerance=1e-5):
    """Results agree, and so do the gradients of a weighted sum in the arrays and the parameters.

    ours, theirs: functions of the arrays that return a tuple; modules: ours and theirs, with equal
    state.
    """
    vars_ = [mo.Var(a, requires_grad=True) for a in arrays]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    named = dict(modules[0].named_parameters()) if modules else {}
    expected_named = dict(modules[1].named_parameters()) if modules else {}
    assert list(named) == list(expected_named)
    results, expected = ours(*vars_), theirs(*tensors)
    weights = [draw(*r.shape, seed=7 + k) for k, r in enumerate(results)]
    loss = sum((r * mo.array(w)).sum() for r, w in zip(results, weights, strict=True))
    gradients = mo.grad(loss, [*vars_, *named.values()])
    sum((r * torch.tensor(w)).sum() for r, w in zip(expected, weights, strict=True)).backward()
    for one, other in zip(results, expected, strict=True):
        close(one, other, tolerance)
    for gradient, leaf in zip(gradients, [*tensors, *expected_named.values()], strict=True):
        close(gradient, leaf.grad, tolerance)


# --- scaled_dot_product_attention -----------------------------------------------------------------


def bool_mask(*shape):
    """True at about two places of three, and at one of every row at least."""
    mask = np.random.default_rng(3).random(shape) < 0.66
    mask[..., 0] = True
    return mask


MASKS = {
    "none": None,
    "bool": bool_mask(5, 7),
    "bool, one row hides all": bool_mask(5, 7) & (np.arange(5) != 2)[:, None],
    "bool per sample": bool_mask(2, 1, 1, 7),
    "float": draw(2, 3, 5, 7, seed=4),
    "float with -inf": np.where(bool_mask(5, 7), 0, -np.inf).astype(np.float32),
}


@pytest.mark.parametrize("name", MASKS)
def test_attention_agrees_with_torch_under_any_mask(name):
    mask = MASKS[name]
    arrays = [draw(2, 3, 5, 4), draw(2, 3, 7, 4, seed=1), draw(2, 3, 7, 6, seed=2)]
    ours = None if mask is None else mo.array(mask)
    theirs = None if mask is None else torch.tensor(mask)
    assert_agree(
        lambda q, k, v: (F.scaled_dot_product_attention(q, k, v, ours),),
        lambda q, k, v: (TF.scaled_dot_product_attention(q, k, v, theirs),),
        arrays,
    )


@pytest.mark.parametrize("sizes", [(5, 5), (3, 6), (6, 3)])
def test_causal_attention_agrees_with_torch(sizes):
    target, source = sizes
    arrays = [draw(2, target, 4), draw(2, source, 4, seed=1), draw(2, source, 4, seed=2)]
    settings = {"is_causal": True, "scale": 0.3}
    assert_agree(
        lambda *a: (F.scaled_dot_product_attention(*a, **settings),),
        lambda *a: (TF.scaled_dot_product_attention(*a, **settings),),
        arrays,
    )


def test_grouped_query_attention_agrees_with_torch():
    arrays = [draw(2, 6, 5, 4), draw(2, 2, 7, 4, seed=1), draw(2, 2, 7, 4, seed=2)]
    assert_agree(
        lambda *a: (F.scaled_dot_product_attention(*a, enable_gqa=True),),
        lambda *a: (TF.scaled_dot_product_attention(*a, enable_gqa=True),),
        arrays,
    )


def test_attention_refuses_a_mask_of_integers_and_two_masks():
    q = mo.zeros((2, 3, 4))
    with pytest.raises(mo.errors.DTypeError, match=r"bool or floating-point, got i64\[3,3\]"):
        F.scaled_dot_product_attention(q, q, q, mo.ones((3, 3), dtype=mo.int64))
    with pytest.raises(ValueError, match="is_causal needs attn_mask=None"):
        F.scaled_dot_product_attention(q, q, q, mo.ones((3, 3)) > 0, is_causal=True)


def test_dropout_of_attention_keeps_the_mean():
    mo.manual_seed(0)
    q, v = mo.zeros((400, 8, 4)), mo.ones((400, 50, 1))
    out = F.scaled_dot_product_attention(q, mo.zeros((400, 50, 4)), v, dropout_p=0.5).numpy()
    assert out.mean() == pytest.approx(1, abs=0.02)
    assert out.std() == pytest.approx((1 / 50) ** 0.5, rel=0.1)  # of 50 terms 0 or 2/50


# --- MultiheadAttention ---------------------------------------------------------------------------


def attention_pair(**settings):
    ours, theirs = (library.MultiheadAttention(8, 2, **settings) for library in (nn, torch.nn))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.3)  # biases start at 0
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_first": True, "bias": False},
        {"kdim": 5, "vdim": 3},
        {"add_bias_kv": True, "add_zero_attn": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_agrees_with_torch(settings, need_weights):
    ours, theirs = attention_pair(**settings)
    first = settings.get("batch_first", False)
    sizes = [(5, 8), (7, settings.get("kdim", 8)), (7, settings.get("vdim", 8))]
    arrays = [draw(*((3, n, c) if first else (n, 3, c)), seed=k) for k, (n, c) in enumerate(sizes)]
    padding, hidden = ~bool_mask(3, 7), ~bool_mask(5, 7)

    def call(module, library, *given):
        masks = [library.asarray(m) for m in (padding, hidden)]
        out, weights = module(
            *given, key_padding_mask=masks[0], attn_mask=masks[1], need_weights=need_weights
        )
        return (out, weights) if need_weights else (out,)

    assert_agree(
        lambda *a: call(ours, mo, *a), lambda *a: call(theirs, torch, *a), arrays, (ours, theirs)
    )


@pytest.mark.parametrize(
    "mask",
    [
        np.where(bool_mask(6, 4, 4), 0, -50).astype(np.float32),
        ~bool_mask(4, 4),
        draw(4, 4),
    ],
    ids=["float per head", "bool", "float"],
)
def test_self_attention_of_one_sequence_or_many_agrees_with_torch(mask):
    ours, theirs = attention_pair()
    single = mask.ndim == 2
    x = draw(4, 8) if single else draw(4, 3, 8)
    settings = {"average_attn_weights": False}
    assert_agree(
        lambda x: ours(x, x, x, attn_mask=mo.array(mask), **settings),
        lambda x: theirs(x, x, x, attn_mask=torch.tensor(mask), **settings),
        [x],
        (ours, theirs),
    )


def test_a_float_mask_and_a_bool_padding_mask_go_together():
    ours, _ = attention_pair(batch_first=True)
    x, hidden, padding = mo.array(draw(3, 4, 8)), ~bool_mask(4, 4), ~bool_mask(3, 4)
    added = mo.array(np.where(hidden, -np.inf, 0).astype(np.float32))
    together, _ = ours(x, x, x, mo.array(padding), attn_mask=added)
    as_bools, _ = ours(x, x, x, mo.array(padding), attn_mask=mo.array(hidden))
    close(together, as_bools.numpy())


def test_a_padded_place_changes_nothing():
    ours, _ = attention_pair(batch_first=True)
    x = draw(1, 5, 8)
    padding = mo.array(np.array([[False, False, False, True, True]]))
    query = mo.array(x[:, :3])
    one = ours(query, mo.array(x), mo.array(x), padding, need_weights=False)[0]
    two = ours(query, mo.array(x[:, :3]), mo.array(x[:, :3]), need_weights=False)[0]
    close(one, two.numpy())


def test_multihead_attention_starts_as_torch_does():
    module = nn.MultiheadAttention(64, 4)
    weight = module.in_proj_weight.numpy()
    bound = (6 / (64 + 3 * 64)) ** 0.5
    assert np.abs(weight).max() <= bound and weight.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not module.in_proj_bias.numpy().any() and not module.out_proj.bias.numpy().any()


def test_multihead_attention_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="num_heads must divide embed_dim 8, got 3"):
        nn.MultiheadAttention(8, 3)
    module = nn.MultiheadAttention(8, 2)
    x = mo.zeros((3, 8))
    with pytest.raises(mo.errors.ShapeError, match=r"2 axes, or all 3, got f32\[3,8\], f32\[8\]"):
        module(x, mo.zeros((8,)), x)
    with pytest.raises(ValueError, match="is_causal is a hint and needs attn_mask"):
        module(x, x, x, is_causal=True)


# --- encoder layers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"activation": "relu", "batch_first": True},
        {"activation": "gelu", "norm_first": True, "bias": False},
    ],
    ids=str,
)
def test_encoder_layer_agrees_with_torch(settings):
    settings = {"d_model": 8, "nhead": 2, "dim_feedforward": 16, "dropout": 0.0, **settings}
    ours, theirs = (lib.TransformerEncoderLayer(**settings) for lib in (nn, torch.nn))
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = draw(3, 4, 8) if settings.get("batch_first") else draw(4, 3, 8)
    padding, hidden = ~bool_mask(3, 4), ~bool_mask(4, 4)
    assert_agree(
        lambda x: (ours(x, mo.array(hidden), mo.array(padding)),),
        lambda x: (theirs(x, torch.tensor(hidden), torch.tensor(padding)),),
        [x],
        (ours, theirs),
    )


def test_encoder_stacks_copies_that_do_not_share_parameters():
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    ours = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8))
    theirs = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2, torch.nn.LayerNorm(8)
    )
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert len(list(ours.parameters())) == 2 * 12 + 2
    assert_agree(lambda x: (ours(x),), lambda x: (theirs(x),), [draw(2, 5, 8)], (ours, theirs))


def test_encoder_trains_under_jit_as_without():
    losses = []
    for wrap in (lambda f: f, mo.jit):
        mo.manual_seed(0)
        net = nn.models.TransformerClassifier(1, 8, 2, 16, 3, dropout=0.1)
        optimizer = nn.optim.SGD(net.parameters(), lr=0.1)

        @wrap
        def step(x, labels, net=net, optimizer=optimizer):
            loss = F.cross_entropy(net(x), labels)
            optimizer.step(loss)
            return loss

        x, labels = mo.array(draw(6, 5, 8)), mo.array(np.arange(6) % 3)
        losses.append([step(x, labels).item() for _ in range(4)])
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


def test_encoder_layer_names_its_activations():
    with pytest.raises(ValueError, match="activation must be 'relu', 'gelu' or a function, got 'x"):
        nn.TransformerEncoderLayer(8, 2, activation="xelu")


# --- embedding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [None, 2, -1])
def test_embedding_agrees_with_torch(padding):
    ours, theirs = (lib.Embedding(6, 3, padding_idx=padding) for lib in (nn, torch.nn))
    ours.load_state_dict(theirs.state_dict())
    index = np.array([[0, 2, 5], [5, 5, 1]])
    assert_agree(
        lambda: (ours(mo.array(index)),),
        lambda: (theirs(torch.tensor(index)),),
        [],
        (ours, theirs),
    )


def test_embedding_starts_normal_with_a_padding_row_of_zeros():
    weight = nn.Embedding(1000, 8, padding_idx=-3).weight.numpy()
    assert not weight[997].any()
    assert weight.std() == pytest.approx(1, abs=0.05)


def test_embedding_from_rows_is_frozen_or_not():
    rows = draw(4, 3)
    layer = nn.Embedding.from_pretrained(mo.array(rows))
    close(layer(mo.array([3, 1])), rows[[3, 1]])
    assert not layer.weight.requires_grad
    assert nn.Embedding.from_pretrained(mo.array(rows), freeze=False).weight.requires_grad


def test_embedding_refuses_wrong_indices():
    layer = nn.Embedding(4, 3)
    with pytest.raises(mo.errors.DTypeError, match=r"input must be integers, got f32\[2\]"):
        layer(mo.zeros((2,)))
    with pytest.raises(IndexError, match="4"):
        layer(mo.array([1, 4])).numpy()
    with pytest.raises(ValueError, match="padding_idx 4 is out of range for 4 rows"):
        nn.Embedding(4, 3, padding_idx=4)


# --- recurrent cells ------------------------------------------------------------------------------

CELLS = ["RNNCell(3, 4)", "RNNCell(3, 4, False, 'relu')", "LSTMCell(3, 4)", "GRUCell(3, 4)",
         "LSTMCell(3, 4, bias=False)", "GRUCell(3, 4, bias=False)"]  # fmt: skip


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("batch", [(5,), ()], ids=["batch", "single"])
def test_cell_agrees_with_torch_over_three_steps_from_zero(cell, batch):
    ours, theirs = eval(f"nn.{cell}"), eval(f"torch.nn.{cell}")
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())

    def run(module, xs):
        state = None
        for t in range(3):
            state = module(xs[t], state)
        return state if isinstance(state, tuple) else (state,)

    xs = draw(3, *batch, 3)
    assert_agree(lambda x: run(ours, x), lambda x: run(theirs, x), [xs], (ours, theirs))


def test_cells_start_uniform_and_refuse_what_does_not_fit():
    cell = nn.GRUCell(5, 16)
    for parameter in cell.parameters():
        assert 0.2 < np.abs(parameter.numpy()).max() <= 0.25
    with pytest.raises(
        mo.errors.ShapeError, match=r"\[batch, input\] or \[input\], got f32\[1,1,5"
    ):
        cell(mo.zeros((1, 1, 5)))
    with pytest.raises(ValueError, match="nonlinearity must be 'tanh' or 'relu', got 'selu'"):
        nn.RNNCell(3, 4, nonlinearity="selu")
