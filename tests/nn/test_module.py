"""Module: what it registers, saves, loads, copies, prints and refuses."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import metaop as mo
from metaop import nn


class Net(nn.Module):
    """Two layers, one buffer that is saved and one that is not; no super().__init__()."""

    def __init__(self):
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2, bias=False)
        self.scale = nn.Parameter([2.0])
        self.register_buffer("count", mo.zeros((1,)))
        self.register_buffer("scratch", mo.zeros((1,)), persistent=False)

    def forward(self, x):
        return self.second(mo.tanh(self.first(x))) * self.scale


def names(pairs):
    return [name for name, _ in pairs]


def values(state):
    return {name: value.numpy() for name, value in state.items()}


def assert_same_values(a, b):
    assert list(a) == list(b)
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


# --- registration ---------------------------------------------------------------------------------


def test_named_entries_are_dotted_and_in_order():
    net = Net()
    assert names(net.named_parameters()) == ["scale", "first.weight", "first.bias", "second.weight"]
    assert names(net.named_buffers()) == ["count", "scratch"]
    assert names(net.named_children()) == ["first", "second"]
    assert names(net.named_modules()) == ["", "first", "second"]
    assert list(net.children()) == [net.first, net.second]
    assert list(net.modules()) == [net, net.first, net.second]
    assert len(list(net.parameters(recurse=False))) == 1


def test_without_and_with_super_init_are_the_same():
    class WithSuper(Net):
        def __init__(self):
            nn.Module.__init__(self)
            super().__init__()

    assert list(WithSuper().state_dict()) == list(Net().state_dict())


def test_a_shared_parameter_is_listed_once_and_saved_under_both_names():
    net = Net()
    net.tied = nn.Linear(3, 4, bias=False)
    net.tied.weight = net.first.weight
    assert "tied.weight" not in names(net.named_parameters())
    assert "tied.weight" in names(net.named_parameters(remove_duplicate=False))
    assert {"first.weight", "tied.weight"} <= set(net.state_dict())


def test_a_shared_module_is_walked_once():
    layer = nn.Linear(2, 2)
    net = nn.Sequential(layer, layer)
    assert len(list(net.modules())) == 2
    assert len(list(net.children())) == 1
    assert len(net) == 2


def test_entries_set_after_construction_are_registered():
    net = Net()
    net.extra = nn.Parameter(mo.zeros((2,)))
    net.third = nn.Linear(2, 1)
    assert {"extra", "third.weight", "third.bias"} <= set(names(net.named_parameters()))


def test_entries_can_be_deleted():
    net = Net()
    del net.first, net.scale, net.count
    assert list(net.state_dict()) == ["second.weight"]
    with pytest.raises(AttributeError, match="first"):
        _ = net.first
    net.note = 3
    del net.note
    with pytest.raises(AttributeError, match="note"):
        del net.note


def test_an_entry_changes_its_kind_only_after_deletion():
    net = Net()
    with pytest.raises(TypeError, match=r"Net\.scale must be an nn\.Parameter or None, got Var"):
        net.scale = mo.zeros((1,))
    with pytest.raises(TypeError, match=r"Net\.first must be an nn\.Module or None"):
        net.first = 3
    with pytest.raises(TypeError, match=r"Net\.count must be a Var or None"):
        net.count = 3
    net.count = mo.ones((1,))
    assert values(net.state_dict())["count"] == 1
    net.count = nn.Parameter([5.0])
    assert "count" in names(net.named_parameters())
    assert "count" not in names(net.named_buffers())


def test_none_registers_an_absent_entry():
    layer = nn.Linear(2, 3, bias=False)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]
    layer.bias = nn.Parameter(mo.zeros((3,)))
    assert list(layer.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("name", ["", "a.b", 3])
def test_a_bad_name_is_refused(name):
    with pytest.raises(KeyError, match="non-empty string without dots"):
        nn.Module().register_buffer(name, mo.zeros((1,)))


def test_registering_another_type_is_refused():
    module = nn.Module()
    with pytest.raises(TypeError, match=r"must be an nn\.Parameter or None, got Var"):
        module.register_parameter("w", mo.zeros((1,)))
    with pytest.raises(TypeError, match=r"must be a Var or None, got float"):
        module.register_buffer("b", 1.0)
    with pytest.raises(TypeError, match=r"must be an nn\.Module or None, got int"):
        module.add_module("m", 1)


def test_an_unknown_attribute_names_close_matches():
    with pytest.raises(AttributeError, match="Net has no attribute 'frist'; did you mean first"):
        _ = Net().frist
    with pytest.raises(AttributeError, match=r"no attribute 'half'; write \.to\(mo\.float16\)"):
        Net().half()
    assert not hasattr(Net(), "zzzzzz")


def test_every_attribute_of_a_torch_module_exists_or_says_what_to_write():
    torch = pytest.importorskip("torch")
    for name in dir(torch.nn.Module):
        if not name.startswith("_") and not hasattr(Net(), name):
            with pytest.raises(
                AttributeError, match=f"no attribute '{name}'; (write|leave|change)"
            ):
                getattr(Net(), name)


def test_parameters_require_gradients_and_operations_on_them_are_plain_vars():
    weight = nn.Parameter([1.0, 2.0])
    assert weight.requires_grad
    assert not nn.Parameter([1.0], requires_grad=False).requires_grad
    assert type(weight * 2) is mo.Var


# --- calling --------------------------------------------------------------------------------------


def test_execute_and_forward_are_one_method():
    class Jittor(nn.Module):
        def execute(self, x):
            return x + 1

    class Torch(Jittor):
        def forward(self, x):
            return super().forward(x) + 10

    class Again(Torch):
        def execute(self, x):
            return super().execute(x) + 100

    assert [m(0) for m in (Jittor(), Torch(), Again())] == [1, 11, 111]
    assert [m.forward(0) for m in (Jittor(), Torch(), Again())] == [1, 11, 111]
    assert Torch().execute(0) == 11


def test_execute_of_a_mixin_wins_over_the_base():
    class Mixin:
        def execute(self, x):
            return "mixin"

    class Mixed(Mixin, nn.Linear):
        pass

    assert Mixed(1, 1)(None) == "mixin"


def test_a_module_without_forward_says_so():
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty defines neither forward nor execute"):
        Empty()(1)


def test_a_call_that_raises_leaves_no_write():
    class Failing(nn.Module):
        def __init__(self):
            self.norm = nn.BatchNorm1d(2)

        def forward(self, x):
            self.norm(x)
            raise RuntimeError("late")

    net = Failing()
    before = values(net.state_dict())
    with pytest.raises(RuntimeError, match="late"):
        net(mo.array([[1.0, 2.0], [3.0, 5.0]]))
    assert_same_values(values(net.state_dict()), before)


def test_a_plain_var_attribute_is_neither_trained_nor_saved():
    class Moving(nn.Module):
        def __init__(self):
            self.moving_mean = mo.zeros((2,))

        def forward(self, x):
            self.moving_mean = 0.5 * self.moving_mean + 0.5 * x.mean(axis=0)
            return x - self.moving_mean

    net = Moving()
    assert not list(net.parameters()) and not net.state_dict()
    for _ in range(2):
        net(mo.array([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_allclose(net.moving_mean.numpy(), [1.5, 2.25])


# --- the state dict -------------------------------------------------------------------------------


def test_state_dict_holds_parameters_and_persistent_buffers_detached():
    state = Net().state_dict()
    assert list(state) == ["scale", "count", "first.weight", "first.bias", "second.weight"]
    assert not any(value.requires_grad for value in state.values())


def test_state_dict_is_a_snapshot():
    net = Net()
    state = net.state_dict()
    before = values(state)
    nn.init.ones_(net.first.weight)
    assert_same_values(values(state), before)


def test_load_state_dict_restores_every_value():
    source, target = Net(), Net()
    identities = [id(p) for p in target.parameters()]
    result = target.load_state_dict(source.state_dict())
    assert result == ([], [])
    assert_same_values(values(target.state_dict()), values(source.state_dict()))
    assert [id(p) for p in target.parameters()] == identities
    assert all(p.requires_grad for p in target.parameters())


def test_load_state_dict_takes_ndarrays_and_casts_them():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": np.array([3])})
    assert layer.weight.dtype is mo.float32
    np.testing.assert_array_equal(layer(mo.array([1.0, 1.0])).numpy(), [6.0])


def test_load_state_dict_takes_torch_tensors():
    torch = pytest.importorskip("torch")
    theirs, ours = torch.nn.Linear(2, 3), nn.Linear(2, 3)
    ours.load_state_dict(theirs.state_dict())
    assert_same_values(
        values(ours.state_dict()), {k: v.numpy() for k, v in theirs.state_dict().items()}
    )
    ours.load_state_dict(dict(theirs.named_parameters()))


def test_load_state_dict_lists_every_fault_and_changes_nothing():
    net = Net()
    before = values(net.state_dict())
    state = {name: mo.ones(value.shape) for name, value in net.state_dict().items()}
    del state["count"], state["first.bias"]
    state["head.weight"] = mo.ones((1,))
    state["second.weight"] = mo.ones((3, 4))
    with pytest.raises(nn.StateDictError) as caught:
        net.load_state_dict(state)
    message = str(caught.value)
    assert "2 missing, 1 unexpected, 1 misshapen; nothing was loaded" in message
    assert "missing: count; first.bias" in message
    assert "unexpected: head.weight" in message
    assert "second.weight is f32[2,4] here, f32[3,4] in the dict" in message
    assert_same_values(values(net.state_dict()), before)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("change, fault", [
    (lambda state: state.pop("bias"), "missing: bias"),
    (lambda state: state.update(scale=state["bias"]), "unexpected: scale"),
], ids=["missing", "unexpected"])  # fmt: skip
def test_load_state_dict_refuses_one_wrong_key(change, fault):
    """Shapes that fit say nothing of keys: each kind of fault is one by itself."""
    layer = nn.Linear(3, 2)
    before = layer.weight.numpy()
    state = {name: value * 2 for name, value in layer.state_dict().items()}
    change(state)
    with pytest.raises(nn.StateDictError, match=fault):
        layer.load_state_dict(state)
    np.testing.assert_array_equal(layer.weight.numpy(), before)


def test_load_state_dict_not_strict_skips_keys_but_not_shapes():
    net = Net()
    result = net.load_state_dict({"scale": mo.array([7.0]), "other": 1.0}, strict=False)
    assert result.missing_keys == ["count", "first.weight", "first.bias", "second.weight"]
    assert result.unexpected_keys == ["other"]
    assert net.scale.numpy() == 7
    with pytest.raises(nn.StateDictError, match="1 misshapen"):
        net.load_state_dict({"scale": mo.ones((2,))}, strict=False)


def test_num_batches_tracked_may_be_absent():
    norm = nn.BatchNorm1d(2)
    state = norm.state_dict()
    assert state["num_batches_tracked"].dtype is mo.int64
    del state["num_batches_tracked"]
    assert norm.load_state_dict(state) == ([], [])


# --- modes and conversions ------------------------------------------------------------------------


def test_train_and_eval_reach_every_module():
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    assert all(module.training for module in net.modules())
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())


def test_apply_visits_children_first():
    seen = []
    net = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))
    assert net.apply(lambda module: seen.append(type(module).__name__)) is net
    assert seen == ["Linear", "ReLU", "Sequential", "Sequential"]


def test_requires_grad_and_zero_grad():
    net = nn.Linear(2, 1)
    net(mo.ones((1, 2))).sum().backward()
    np.testing.assert_array_equal(net.weight.grad.numpy(), [[1, 1]])
    net.zero_grad(set_to_none=False)
    np.testing.assert_array_equal(net.weight.grad.numpy(), [[0, 0]])
    net.zero_grad()
    assert net.weight.grad is None
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_to_converts_floating_values_and_keeps_ties():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[1].weight = net[0].weight
    weight = net[0].weight.numpy()
    assert net.double() is net
    assert net[0].weight is net[1].weight
    assert isinstance(net[0].weight, nn.Parameter) and net[0].weight.requires_grad
    assert {v.dtype for v in net.state_dict().values()} == {mo.float64, mo.int64}
    np.testing.assert_array_equal(net[0].weight.numpy(), weight.astype(np.float64))
    assert net.float()[2].running_var.dtype is mo.float32
    assert net.to("cpu").cpu().to("float64")[0].weight.dtype is mo.float64
    with pytest.raises(ValueError, match="the only device is 'cpu'"):
        net.to("cuda:0")


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))],
    ids=["copy", "pickle"],
)
def test_a_copy_is_equal_and_independent(duplicate):
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).eval()
    net[2].weight = net[0].weight
    twin = duplicate(net)
    assert_same_values(values(twin.state_dict()), values(net.state_dict()))
    assert twin[2].weight is twin[0].weight
    assert isinstance(twin[0].weight, nn.Parameter) and twin[0].weight.requires_grad
    assert not twin.training and repr(twin) == repr(net)
    nn.init.zeros_(twin[0].weight)
    assert net[0].weight.numpy().any()


# --- containers -----------------------------------------------------------------------------------


def test_sequential_indexes_slices_and_appends():
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 3))
    assert net[-1] is net[2]
    assert isinstance(net[:2], nn.Sequential) and list(net[:2]) == [net[0], net[1]]
    net.append(nn.Tanh()).extend([nn.ReLU()])
    assert names(net.named_children()) == ["0", "1", "2", "3", "4"]
    net[1] = nn.Sigmoid()
    assert isinstance(net[1], nn.Sigmoid)
    del net[0]
    net.insert(0, nn.Identity())
    assert [type(m).__name__ for m in net] == ["Identity", "Sigmoid", "Linear", "Tanh", "ReLU"]
    with pytest.raises(IndexError, match="position 7 is out of range for 5 modules"):
        _ = net[7]


def test_sequential_takes_names():
    net = nn.Sequential(OrderedDict(hidden=nn.Linear(1, 2), out=nn.Linear(2, 1)))
    assert next(iter(net.state_dict())) == "hidden.weight"
    assert net.hidden is net[0]
    assert names(net[1:].named_children()) == ["out"]
    assert net(mo.ones((5, 1))).shape == (5, 1)


def test_slicing_a_subclass_gives_a_sequential():
    assert len(nn.models.LeNetBN()[:3]) == 3


def test_module_list_registers_its_modules():
    layers = nn.ModuleList([nn.Linear(1, 1) for _ in range(3)])
    assert len(list(layers.parameters())) == 6
    assert len(layers[1:]) == 2
    layers.insert(0, nn.ReLU())
    assert isinstance(layers[0], nn.ReLU) and len(layers) == 4


def test_repr_is_that_of_torch():
    torch = pytest.importorskip("torch")

    def build(nn):
        block = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True))
        return nn.Sequential(block, nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1), nn.Tanh()]))

    assert repr(build(nn)) == repr(build(torch.nn))


LAYERS = """
Linear(2, 3) | Linear(2, 3, bias=False) | Identity() | Flatten() | Unflatten(1, (2, 3))
Conv1d(2, 4, 3) | Conv2d(1, 6, 5)
Conv2d(4, 8, (3, 5), stride=2, padding=1, dilation=2, groups=2)
Conv2d(1, 1, 3, padding="same", bias=False) | BatchNorm1d(3) | BatchNorm2d(3, momentum=None)
Dropout(0.3) | LayerNorm(4) | LayerNorm((2, 3), eps=1e-3) | GroupNorm(2, 4) | MaxPool2d(2)
MaxPool2d((2, 3), 1) | AvgPool2d(2) | AvgPool2d(3, stride=2, padding=1) | ReLU()
ReLU(inplace=True) | ReLU6() | Sigmoid() | Tanh() | LeakyReLU(0.2) | ELU() | SELU() | GELU()
SiLU() | Mish() | Softplus() | Softsign() | Hardswish() | Hardsigmoid() | LogSigmoid()
Softmax(dim=1) | Softmin(1) | LogSoftmax(dim=-1) | CrossEntropyLoss() | NLLLoss() | MSELoss()
L1Loss() | SmoothL1Loss() | BCELoss() | BCEWithLogitsLoss() | Hardtanh(-2.0, 2.0)
"""


@pytest.mark.parametrize(
    "layer", [s.strip() for s in LAYERS.replace("\n", "|").split("|") if s.strip()]
)
def test_layer_repr_is_that_of_torch(layer):
    torch = pytest.importorskip("torch")
    ours, theirs = repr(eval(f"nn.{layer}")), repr(eval(f"torch.nn.{layer}", {"torch": torch}))
    # Older releases of torch have no bias argument in their norms.
    assert ours.replace(", bias=True", "") == theirs.replace(", bias=True", "")


def test_the_line_of_a_copied_layer_is_that_of_the_copy():
    """It was once the line of the standard library's copyreg."""
    copied = copy.deepcopy(nn.Linear(2, 3))
    namespace = {"net": copied, "x": mo.ones(4, 2)}
    exec(
        compile("import metaop as mo\ntext = mo.dump(net, inputs=[x])", mo.__file__, "exec"),
        namespace,
    )
    assert "# test_module.py:" in namespace["text"] and "copyreg" not in namespace["text"]
