"""Optimizer: parameter groups, state, and a step that happens wholly or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
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
        trained = list(self._trained())
        attempt = None
        if loss is not None:
            self.zero_grad()
            attempt = self._attempt(loss, trained)
            if attempt is not None and attempt.repeat(partial(self._count, trained)):
                return
        moved = self._gradients(loss, trained)
        with self._recording():
            self._move(moved, attempt)
        moved.clear()  # nobody asked for the gradients
        if attempt is None:
            mo.sync()
        else:
            attempt.compute()

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """For recording updates: no history, no interrupts, the user's line for all parameters."""
        recording = support.recording
        scope, layer = recording.scope, recording.layer
        with mo.uninterrupted(), mo.no_grad():
            if self._is_own() and layer is None:
                recording.layer = support.user_site()
            recording.scope = scope.within("optimizer")
            try:
                yield
            finally:
                recording.layer, recording.scope = layer, scope

    def _is_own(self) -> bool:
        return support.is_own(type(self).update.__code__.co_filename)

    def _move(
        self, moved: list[tuple[Var, Var, Group]], attempt: support.Attempt | None = None
    ) -> None:
        groups = {id(group): group for _, _, group in moved}
        values = {key: _read(group) for key, group in groups.items()}
        writes: list[tuple[Var, Var]] = []
        for parameter, gradient, group in moved:
            state = self._state_of(parameter, group)
            if attempt is not None:
                attempt.begin_rule()
            value, new_state = self._updated(
                parameter, gradient, state=state, group=values[id(group)]
            )
            writes.append((parameter, value))
            writes += [(state[name], new) for name, new in new_state.items()]
        pairs = [(parameter, group) for parameter, _, group in moved]
        mo.assign_all(writes, partial(self._count, pairs), partial(self._count, pairs, -1))

    def _count(self, pairs: list[tuple[Var, Group]], steps: int = 1) -> None:
        """Adds to the number of steps of some parameters."""
        for parameter, _ in pairs:
            self.state[parameter]["step"] += steps

    def _updated(
        self, parameter: Var, gradient: Var, *, state: State, group: Group
    ) -> tuple[Var, dict[str, Var]]:
        coming = dict(_read(state))
        coming["step"] += 1
        return self.update(parameter, gradient, coming, group)

    def _attempt(self, loss: Var, trained: list[tuple[Var, Group]]) -> support.Attempt | None:
        """This step, to be made as one like it was; None if the rule may see more than it is
        given, as code of the user's, or if state is missing."""
        is_own = type(self).__module__.startswith("metaop.") and "update" not in vars(self)
        if not is_own or not self._is_own() or not support.may_be_repeated(loss):
            return None
        attempt = support.Attempt(loss)
        group = None
        with self._recording():
            for parameter, own in trained:
                if own is not group:
                    group, values, names = own, _read(own), self.state_names(own)
                state = self.state.get(parameter)
                if state is None or not state.keys() >= {*names}:
                    return None
                kind = (id(group), parameter.dtype, state.get("step"))
                if kind not in attempt.kinds:
                    rule = partial(self._updated, parameter, state=state, group=values)
                    attempt.add_kind(kind, parameter, state, rule)
                attempt.add(kind, parameter, state)
        return attempt

    def _gradients(
        self, loss: Var | None, trained: list[tuple[Var, Group]]
    ) -> list[tuple[Var, Var, Group]]:
        parameters = [parameter for parameter, _ in trained]
        if loss is None:
            gradients = [parameter.grad for parameter in parameters]
        else:
            gradients = mo.grad(loss, parameters, retain_graph=False)
        return [
            (parameter, gradient, group)
            for (parameter, group), gradient in zip(trained, gradients, strict=True)
            if gradient is not None
        ]

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
                    loaded[parameter] = self.loaded(current, parameter, states[number])
        for group, saved_group in zip(self.param_groups, saved, strict=True):
            group.update({k: v for k, v in saved_group.items() if k != "params"})
        self.state = loaded

    def loaded(self, current: State | None, parameter: Var, saved: Mapping[str, Any]) -> State:
        """The state of a parameter as a state dict has it; current: what it is now.

        Raises: ValueError where a shape differs.
        """
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
    if isinstance(value, list):
        return [_snapshot(item) for item in value]
    return value.detach() if isinstance(value, Var) else value
