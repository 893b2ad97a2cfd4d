"""Optimizer: parameter groups, state, and a step that happens wholly or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import metaop as mo
from metaop import Var, support

Group = dict[str, Any]
State = dict[str, Any]
APART = ("defaults", "param_groups", "state")  # guarded piece by piece in a trace


def check_at_least_zero(**values: float) -> None:
    """Raise ValueError for the first negative hyperparameter."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")


def _count(states: list[State], steps: int) -> None:
    """Adds to the number of steps of some parameters."""
    for state in states:
        state["step"] += steps


class Optimizer:
    """The base of all optimisers.

    params: an iterable of Vars, or of groups `{"params": [...], "lr": ...}` whose hyperparameters
    override `defaults`.  A subclass says which Vars it keeps per parameter (`state_names`), what
    they are at first (`initial`: zeros) and how a step changes them (`update`); everything else is
    here.

    param_groups: the groups, hyperparameters readable and writable at any time.
    state: parameter -> its Vars by name, and "step", the number of steps it has made.

    Making an optimiser computes what is pending, the parameters' initial values above all, so that
    its first step is the same program as its second.

    Source: as torch.optim.Optimizer.
    """

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]):
        self.defaults = dict(defaults)
        self.param_groups: list[Group] = []
        self.state: dict[Var, State] = support.Watched()
        if isinstance(params, Var):
            raise TypeError(f"params must be an iterable of Vars or groups, write [{params!r}]")
        if not isinstance(params, Iterable):
            raise TypeError(
                "params must be an iterable of Vars or groups, as net.parameters(), got "
                f"{type(params).__name__}"
            )
        groups = list(params)
        if not groups:
            raise ValueError("the optimiser got no parameters")
        if not isinstance(groups[0], Mapping):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    _watched = True

    def __setattr__(self, name: str, value: Any) -> None:
        support.changes.count += 1
        object.__setattr__(self, name, value)

    # --- what a subclass defines ------------------------------------------------------------------

    def state_names(self, group: Group) -> tuple[str, ...]:
        """The Vars kept per parameter of this group; `initial` makes them."""
        raise NotImplementedError

    def initial(self, name: str, parameter: Var, group: Group) -> Var:
        """The Var of that name before the first step: zeros of the parameter's shape."""
        return mo.zeros(parameter.shape, dtype=parameter.dtype)

    def update(
        self, parameter: Var, gradient: Var, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        """The parameter's new value and the new values of its state; changes nothing.

        `state["step"]` is the number of this step, from 1.
        """
        raise NotImplementedError

    # --- groups and state -------------------------------------------------------------------------

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with hyperparameters of their own."""
        params = param_group["params"]
        params = [params] if isinstance(params, Var) else list(params)
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for parameter in params:
            if not isinstance(parameter, Var):
                raise TypeError(f"an optimiser moves Vars, got {type(parameter).__name__}")
            if id(parameter) in known:
                raise ValueError("a parameter appears in more than one place of the groups")
            known.add(id(parameter))
        group = support.Cells({**self.defaults, **param_group, "params": params})
        self.param_groups.append(group)
        for parameter in params:
            if parameter.requires_grad:
                self._state_of(parameter, group)
        mo.sync()

    def _state_of(self, parameter: Var, group: Group) -> State:
        state = self.state.get(parameter)
        missing = [n for n in self.state_names(group) if state is None or n not in state]
        if state is None or missing:
            with support.outside() as trace:
                state = self._complete(parameter, missing, group)
            if trace is not None:
                trace.adopt(*[dict.__getitem__(state, name) for name in missing])
        if support.recording.trace is not None:
            support.recording.trace.guard_entry(self.state, parameter, state)
        return state

    def _complete(self, parameter: Var, missing: list[str], group: Group) -> State:
        """The state of a parameter with initial values for what is missing."""
        state = self.state.setdefault(parameter, support.Counters(step=0))
        for name in missing:
            state[name] = self.initial(name, parameter, group).sync()
        return state

    def _meet(self, trace: Any, label: str) -> None:
        """Lets a trace of `mo.jit` know which parameters and groups there are."""
        if trace.meet(self, label, APART):
            trace.guard_same(f"{trace.name_for(self)}.state", self.state, f"{label}.state", True)
            trace.guard_members(self, "param_groups", label)
            for group in self.param_groups:
                trace.guard_members(group, "params", label)

    @property
    def lr(self) -> float:
        """The learning rate of the first group; setting it sets every group's."""
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.param_groups:
            group["lr"] = value

    def _trained(self) -> Iterator[tuple[Var, Group]]:
        if support.recording.trace is not None:
            self._meet(support.recording.trace, type(self).__name__)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    yield parameter, group

    # --- a step -----------------------------------------------------------------------------------

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set `.grad` of every parameter to None, or to zeros with set_to_none=False."""
        if support.recording.trace is not None:
            self._meet(support.recording.trace, type(self).__name__)
        for group in self.param_groups:
            for parameter in group["params"]:
                keep = not set_to_none and parameter.grad is not None
                parameter.grad = mo.zeros_like(parameter.grad) if keep else None

    def step(self, loss: Var | None = None) -> None:
        """Move every parameter once.

        Without loss, by its `.grad`, parameters without one left out.  With loss, by the gradient
        of loss, whose history is dropped; `.grad` is None afterwards.

        All new values are recorded first and bound together: an error or an interrupt leaves
        parameters and state as they were.
        """
        moved = list(self._gradients(loss))
        recording = support.recording
        scope = recording.scope
        own = support.is_own(type(self).update.__code__.co_filename)
        with mo.uninterrupted(), mo.no_grad():
            layer = recording.layer
            if own and layer is None:
                recording.layer = support.user_site()  # once for all parameters
            recording.scope = scope.within("optimizer")
            try:
                self._move(moved)
            finally:
                recording.layer, recording.scope = layer, scope
        mo.sync()

    def _move(self, moved: list[tuple[Var, Var, Group]]) -> None:
        groups = {id(group): group for _, _, group in moved}
        values = {key: _read(group) for key, group in groups.items()}
        writes: list[tuple[Var, Var]] = []
        for parameter, gradient, group in moved:
            state = self._state_of(parameter, group)
            coming = dict(_read(state))
            coming["step"] += 1
            value, new_state = self.update(parameter, gradient, coming, values[id(group)])
            writes.append((parameter, value))
            writes += [(state[name], new) for name, new in new_state.items()]
        states = [self.state[parameter] for parameter, _, _ in moved]
        mo.assign_all(writes, lambda: _count(states, 1), lambda: _count(states, -1))

    def _gradients(self, loss: Var | None) -> Iterator[tuple[Var, Var, Group]]:
        trained = list(self._trained())
        if loss is None:
            gradients = [parameter.grad for parameter, _ in trained]
        else:
            self.zero_grad()
            gradients = mo.grad(loss, [parameter for parameter, _ in trained], retain_graph=False)
        for (parameter, group), gradient in zip(trained, gradients, strict=True):
            if gradient is not None:
                yield parameter, gradient, group

    # --- saving -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """`{"state": {number: {...}}, "param_groups": [...]}`, parameters named by their number."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        numbers = {id(parameter): i for i, parameter in enumerate(parameters)}
        return {
            "state": {
                numbers[id(parameter)]: {k: _snapshot(v) for k, v in state.items()}
                for parameter, state in self.state.items()
            },
            "param_groups": [
                {**group, "params": [numbers[id(p)] for p in group["params"]]}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over hyperparameters and state from `state_dict()` of an optimiser like this one.

        Raises: ValueError where groups, their sizes or the shapes of the state differ; nothing has
        changed then.
        """
        saved = state_dict["param_groups"]
        here = [len(group["params"]) for group in self.param_groups]
        there = [len(group["params"]) for group in saved]
        if here != there:
            raise ValueError(
                f"load_state_dict: groups have {here} parameters here, {there} in the state dict"
            )
        states = {int(number): state for number, state in state_dict["state"].items()}
        loaded: dict[Var, State] = support.Watched()
        for group, saved_group in zip(self.param_groups, saved, strict=True):
            for parameter, number in zip(group["params"], saved_group["params"], strict=True):
                if number in states:
                    current = self.state.get(parameter)
                    loaded[parameter] = _loaded_state(current, parameter, states[number])
        for group, saved_group in zip(self.param_groups, saved, strict=True):
            group.update({k: v for k, v in saved_group.items() if k != "params"})
        self.state = loaded

    def __repr__(self) -> str:
        groups = []
        for i, group in enumerate(self.param_groups):
            values = "".join(
                f"\n    {name}: {group[name]}" for name in sorted(group) if name != "params"
            )
            groups.append(f"\nParameter Group {i}{values}")
        return f"{type(self).__name__} ({''.join(groups)}\n)"


def _read(cells: dict[str, Any]) -> dict[str, Any]:
    """The entries, as a trace reads them."""
    return cells.read() if isinstance(cells, support.Cells) else cells


def _snapshot(value: Any) -> Any:
    return value.detach() if isinstance(value, Var) else value


def _loaded_state(current: State | None, parameter: Var, saved: Mapping[str, Any]) -> State:
    state: State = support.Counters()
    for name, value in saved.items():
        if name == "step":
            state[name] = int(value)
            continue
        loaded = mo.array(value)
        here = parameter if current is None else current.get(name, parameter)
        if loaded.shape != here.shape:
            raise ValueError(
                f"load_state_dict: {name} is {mo.errors.describe(loaded)}, "
                f"its parameter is {mo.errors.describe(parameter)}"
            )
        state[name] = loaded.astype(parameter.dtype)
    state.setdefault("step", 0)
    return state
