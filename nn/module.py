"""Module: a tree of parameters, buffers and submodules with a `forward` (or `execute`).

Three tables hold what a Module registers: `_parameters`, `_buffers` and `_modules`, each from name
to value (None: registered, but absent).  They are made on first use, so a subclass may or may not
call `super().__init__()`.  Every other attribute, a plain Var among them, is the user's own: it is
neither trained nor saved.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import metaop as mo
from metaop import support

from . import hooks
from .parameter import Parameter

TABLES = ("_parameters", "_buffers", "_modules")

# What to write for a name that torch or Jittor has.
STATE_HOOK = "change the dict that state_dict() returns, or that load_state_dict(state) is given"
ELSEWHERE = {
    **dict.fromkeys(("cuda", "ipu", "xpu", "mtia"), "leave it out, the only device is the CPU"),
    "half": "write .to(mo.float16)",
    "float16": "write .to(mo.float16)",
    "bfloat16": "write .to(mo.bfloat16)",
    "float32": "write .float()",
    "float64": "write .double()",
    "is_training": "read .training",
    "is_train": "read .training",
    "save": "write mo.save(net.state_dict(), path)",
    "load": "write net.load_state_dict(mo.load(path))",
    "load_parameters": "write net.load_state_dict(state)",
    "dfs": "write for module in net.modules()",
    "type": "write .to(dtype)",
    "to_empty": "leave it out",
    "share_memory": "leave it out",
    "compile": "write mo.jit(net)",
    "get_submodule": "write dict(net.named_modules())[name]",
    "get_parameter": "write dict(net.named_parameters())[name]",
    "get_buffer": "write dict(net.named_buffers())[name]",
    "set_submodule": "write net.part = module",
    "register_backward_hook": "write register_full_backward_hook(hook)",
    **dict.fromkeys(
        ("register_state_dict_pre_hook", "register_state_dict_post_hook",
         "register_load_state_dict_pre_hook", "register_load_state_dict_post_hook"),
        STATE_HOOK,
    ),
    **dict.fromkeys(("get_extra_state", "set_extra_state"), "write register_buffer(name, var)"),
    **dict.fromkeys(("T_destination", "call_super_init", "dump_patches"), "leave it out"),
}  # fmt: skip


class StateDictError(mo.errors.MetaopError, ValueError):
    """A state dict does not fit the module; lists every missing, unexpected and misshapen key."""


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` skipped."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class _Slot(NamedTuple):
    """One place of a state dict: its full key, the Var behind it, whether a dict may omit it."""

    key: str
    var: mo.Var
    optional: bool


def _unique(named: Iterator[tuple[str, Any]], remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
    """The pairs whose value was not seen before; identity counts, since `==` of Vars is a Var."""
    seen: set[int] = set()
    for name, value in named:
        if remove_duplicate and id(value) in seen:
            continue
        seen.add(id(value))
        yield name, value


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


_made: WeakKeyDictionary[Module, support.Site] = WeakKeyDictionary()


class Module:
    """The base of all layers and networks.

    A subclass sets Parameters and Modules as attributes and defines `forward`, or `execute` in
    Jittor's manner; the two names are one method.  `module(x)` calls it:

        class Net(nn.Module):
            def __init__(self):
                self.hidden = nn.Linear(2, 8)
                self.out = nn.Linear(8, 1)

            def forward(self, x):
                return self.out(mo.tanh(self.hidden(x)))

    training: True after `train()`, False after `eval()`.

    Source: as torch.nn.Module.
    """

    training: bool = True
    _is_layer = False  # True where forward is metaop's own code
    _makes_parameter = False  # what `utils.parametrize` registers
    _watched = True  # every change of an attribute counts in `support.changes`
    # Names in the state dict that a dict to be loaded may leave out.
    optional_state: frozenset[str] = frozenset()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """A module, of which the user's line that makes it is remembered."""
        module = super().__new__(cls)
        _made[module] = support.user_site()
        return module

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make `forward` and `execute` one method: the first that the class's bases define."""
        super().__init_subclass__(**kwargs)
        for base in cls.__mro__:
            own = vars(base)
            if "forward" in own and "execute" in own:
                return
            method = own.get("forward") or own.get("execute")
            if method is not None:
                cls.forward = cls.execute = method  # type: ignore[method-assign]
                code = getattr(method, "__code__", None)
                cls._is_layer = code is not None and support.is_own(code.co_filename)
                return

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's value for these arguments; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} defines neither forward nor execute")

    execute = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`forward(*args, **kwargs)`; if it raises, no write that it recorded remains."""
        state = support.recording.__dict__  # of this thread; quicker than its attributes
        if state["trace"] is not None:
            self._meet(state["trace"])
        scope, caller = state["scope"], state["module"]
        name = type(self).__name__ if caller is None else self._name_in(caller)
        state["scope"], state["module"] = scope.inner(name), self
        try:
            if not support.in_transaction():
                with mo.transaction():
                    return self._with_hooks(args, kwargs)
            return self._with_hooks(args, kwargs)
        finally:
            state["scope"], state["module"] = scope, caller

    def _name_in(self, caller: Module | None) -> str:
        """The name by which the module that calls this one knows it; else that of the class."""
        if caller is None:
            return type(self).__name__
        name, owner = self.__dict__.get("_called", ("", 0))
        if owner == id(caller):
            if caller.__dict__.get("_modules", {}).get(name) is self or self._is_below(
                caller, name
            ):
                return name
        name = next((n for n, m in caller.named_modules() if m is self), type(self).__name__)
        if support.recording.trace is None:  # a trace sees what changes in a module
            self.__dict__["_called"] = name, id(caller)
        return name

    def _is_below(self, caller: Module, name: str) -> bool:
        """Whether a module that is no direct child still has the dotted name; no module's has its
        class's."""
        found: Any = caller
        for part in name.split("."):
            found = found.__dict__.get("_modules", {}).get(part)
            if found is None:
                return name == type(self).__name__
        return found is self

    def _with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`forward`, with the hooks around it."""
        own = self.__dict__
        if not own.keys().isdisjoint(hooks.TABLES):
            return hooks.called(self, self._at_one_site, args, kwargs)
        return self._at_one_site(args, kwargs)

    def _at_one_site(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """All that a layer of metaop's own records has one site, which is looked for once."""
        recording, own = support.recording, self.__dict__
        if (
            recording.layer is not None
            or not self._is_layer
            or own.get("_modules")
            or "forward" in own
        ):
            return self.forward(*args, **kwargs)
        site = support.user_site()
        if support.is_own(site.filename):  # no user's frame: the line that made the layer
            site = _made.get(self, site)
        recording.layer = site
        try:
            return self.forward(*args, **kwargs)
        finally:
            recording.layer = None

    # --- attributes -------------------------------------------------------------------------------

    def _table(self, table: str) -> dict[str, Any]:
        entries = self.__dict__.get(table)
        if entries is None:
            entries = self.__dict__[table] = support.Watched()
        return entries

    def _meet(self, trace: Any, label: str = "") -> None:
        """Lets a trace of `mo.jit` know the module, before its attributes are read or written."""
        for table in TABLES:
            self._table(table)
        if trace.meet(self, label) and "training" not in self.__dict__:
            trace.guard_value(
                f"{trace.name_for(self)}.training", self.training, f"{label}.training"
            )

    def __getattr__(self, name: str) -> Any:
        if support.recording.trace is not None:
            self._meet(support.recording.trace)
        for table in TABLES:
            entries = self.__dict__.get(table, {})
            if name in entries:
                return entries[name]
        if name in self._computed():
            return self._table("_modules")["parametrizations"][name]()
        raise AttributeError(self._unknown(name))

    def _computed(self) -> dict[str, Any]:
        """What `utils.parametrize` computes when it is read, by name."""
        made = self.__dict__.get("_modules", {}).get("parametrizations")
        if made is None:
            return {}
        return {name: m for name, m in made._table("_modules").items() if m._makes_parameter}

    def _unknown(self, name: str) -> str:
        message = f"{type(self).__name__} has no attribute {name!r}"
        if name.startswith("__"):
            return message
        if name in ELSEWHERE:
            return f"{message}; {ELSEWHERE[name]}"
        close = difflib.get_close_matches(name, dir(self), n=3)
        return f"{message}; did you mean {' or '.join(close)}?" if close else message

    def __setattr__(self, name: str, value: Any) -> None:
        support.changes.count += 1
        if support.recording.trace is not None:
            self._meet(support.recording.trace)
        if name in self._computed():
            raise TypeError(
                f"{type(self).__name__}.{name} is computed: write to "
                f"parametrizations.{name}.original, or call "
                f"nn.utils.parametrize.remove_parametrizations(module, {name!r}) first"
            )
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.register_module(name, value)
        elif (table := self._home(name)) is not None:
            self._replace(table, name, value)
        else:
            object.__setattr__(self, name, value)

    def _home(self, name: str) -> str | None:
        """The table that holds `name`, if any."""
        return next((table for table in TABLES if name in self.__dict__.get(table, {})), None)

    def _replace(self, table: str, name: str, value: Any) -> None:
        """Set a registered name to None, or a buffer to another Var; anything else is an error."""
        if value is not None and not (table == "_buffers" and isinstance(value, mo.Var)):
            wanted = {"_parameters": "an nn.Parameter", "_modules": "an nn.Module"}
            raise TypeError(
                f"{type(self).__name__}.{name} must be {wanted.get(table, 'a Var')} or None, "
                f"got {type(value).__name__}; `del module.{name}` first to change its kind"
            )
        self._table(table)[name] = value

    def __delattr__(self, name: str) -> None:
        support.changes.count += 1
        if support.recording.trace is not None:
            self._meet(support.recording.trace)
        table = self._home(name)
        if table is None:
            object.__delattr__(self, name)
        else:
            self._forget(table, name)

    def _forget(self, table: str, name: str) -> None:
        del self._table(table)[name]
        self.__dict__.get("_unsaved", set()).discard(name)

    def __dir__(self) -> list[str]:
        names = [name for table in TABLES for name in self.__dict__.get(table, {})]
        return sorted({*object.__dir__(self), *names})

    def _register(self, table: str, name: str, value: Any) -> None:
        if not isinstance(name, str) or not name or "." in name:
            raise KeyError(f"a registered name is a non-empty string without dots, got {name!r}")
        home = self._home(name)
        if home is not None and home != table:
            self._forget(home, name)
        self.__dict__.pop(name, None)
        self._table(table)[name] = value

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a Parameter, or None for one that is absent (as `bias` with bias=False)."""
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"{name!r} must be an nn.Parameter or None, got {type(param).__name__}")
        self._register("_parameters", name, param)

    def register_buffer(self, name: str, tensor: mo.Var | None, persistent: bool = True) -> None:
        """Add a Var that is not trained; it is in the state dict unless persistent is False."""
        if tensor is not None and not isinstance(tensor, mo.Var):
            raise TypeError(f"buffer {name!r} must be a Var or None, got {type(tensor).__name__}")
        self._register("_buffers", name, tensor)
        unsaved = self.__dict__.setdefault("_unsaved", set())
        (unsaved.discard if persistent else unsaved.add)(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a submodule, or None for one that is absent."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{name!r} must be an nn.Module or None, got {type(module).__name__}")
        self._register("_modules", name, module)

    add_module = register_module

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> hooks.ModuleHook:
        """Calls hook(module, args) before every forward; what it returns, unless None, takes the
        place of args: a tuple, or one argument.

        with_kwargs: hook(module, args, kwargs), which returns None or (args, kwargs); prepend: it
        runs before those that are there.  A jitted function calls hooks when it is traced.  Returns
        a handle with remove().  Source: as torch.nn.Module.register_forward_pre_hook.
        """
        return hooks.register(self, hooks.BEFORE, hook, prepend, with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> hooks.ModuleHook:
        """Calls hook(module, args, output) after every forward; what it returns, unless None, takes
        the place of the output.

        with_kwargs: hook(module, args, kwargs, output); else as `register_forward_pre_hook`.
        Source: as torch.nn.Module.register_forward_hook.
        """
        return hooks.register(self, hooks.AFTER, hook, prepend, with_kwargs)

    def register_full_backward_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> hooks.ModuleHook:
        """Calls hook(module, of_inputs, of_outputs) in every backward pass, with the gradients of
        the positional arguments and of the Var, or the tuple, that forward returns: None for what
        is no Var or has none, zeros for an argument that requires none; what it returns, unless
        None, takes the place of those of the arguments, a tuple too.

        Where no argument requires a gradient, it is called when the gradients of the outputs are
        known.  A jitted function calls hooks when it is traced: what they record is replayed.
        Returns a handle with remove().  Source: as torch.nn.Module.register_full_backward_hook.
        """
        return hooks.register(self, hooks.BACKWARD, hook, prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> hooks.ModuleHook:
        """Calls hook(module, of_outputs) in every backward pass before the module's own; what it
        returns, unless None, takes the place of the gradients of the outputs, a tuple too.

        Else as `register_full_backward_hook`.  Source: as
        torch.nn.Module.register_full_backward_pre_hook.
        """
        return hooks.register(self, hooks.BEFORE_BACKWARD, hook, prepend)

    # --- what is in the tree ----------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct submodules, each once."""
        present = ((n, m) for n, m in self._table("_modules").items() if m is not None)
        return _unique(present, True)

    def children(self) -> Iterator[Module]:
        """The direct submodules, each once."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this module and all below it, each once."""
        return _unique(self._walk(prefix), remove_duplicate)

    def _walk(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, module in self._table("_modules").items():
            if module is not None:
                yield from module._walk(_join(prefix, name))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def _named_entries(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        owners = self.named_modules(prefix, remove_duplicate) if recurse else [(prefix, self)]
        entries = (
            (_join(path, name), value)
            for path, module in owners
            for name, value in module._entries(table).items()
            if value is not None
        )
        return _unique(entries, remove_duplicate)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter) of all trained Vars, a shared one once."""
        return self._named_entries("_parameters", prefix, recurse, remove_duplicate)

    def _entries(self, table: str) -> dict[str, Any]:
        """What a table holds, for whoever needs all of it."""
        return self._table(table)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All trained Vars, a shared one once."""
        return (parameter for _, parameter in self.named_parameters("", recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, mo.Var]]:
        """(dotted name, buffer) of all registered buffers, a shared one once."""
        return self._named_entries("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[mo.Var]:
        """All registered buffers, a shared one once."""
        return (buffer for _, buffer in self.named_buffers("", recurse))

    # --- the state dict ---------------------------------------------------------------------------

    def _slots(self, prefix: str = "") -> Iterator[_Slot]:
        """Parameters, then saved buffers, then the submodules'; a shared Var under each name."""
        unsaved = self.__dict__.get("_unsaved", set())
        saved = {n: b for n, b in self._entries("_buffers").items() if n not in unsaved}
        for name, var in (self._entries("_parameters") | saved).items():
            if var is not None:
                yield _Slot(prefix + name, var, name in self.optional_state)
        for name, module in self._table("_modules").items():
            if module is not None:
                yield from module._slots(f"{prefix}{name}.")

    def state_dict(self, prefix: str = "") -> dict[str, mo.Var]:
        """Name -> value of every parameter and persistent buffer, in order of registration.

        The values are detached snapshots: training on does not change them.
        """
        return {slot.key: slot.var.detach() for slot in self._slots(prefix)}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> IncompatibleKeys:
        """Write the values of a state dict into this module's parameters and buffers.

        state_dict: name -> Var, ndarray or torch tensor; each is cast to the dtype it has here.
        strict: whether keys must match; a value of another shape is an error in any case.

        Returns: the missing and the unexpected keys.
        Raises: StateDictError naming every key at fault; nothing has changed then.
        """
        state_dict = dict(state_dict)
        for path, module in list(self.named_modules()):
            module._adapt(state_dict, _join(path, ""))
        slots = list(self._slots())
        values = {s.key: _as_var(state_dict[s.key]) for s in slots if s.key in state_dict}
        known = {slot.key for slot in slots}
        missing = [s.key for s in slots if s.key not in values and not s.optional]
        unexpected = [key for key in state_dict if key not in known]
        misshapen = [
            f"{s.key} is {mo.errors.describe(s.var)} here, {mo.errors.describe(values[s.key])} "
            "in the dict"
            for s in slots
            if s.key in values and values[s.key].shape != s.var.shape
        ]
        if misshapen or (strict and (missing or unexpected)):
            raise StateDictError(
                _mismatch(type(self).__name__, strict, missing, unexpected, misshapen)
            )
        with mo.no_grad():
            writes = {id(s.var): (s.var, values[s.key]) for s in slots if s.key in values}
            mo.assign_all([(var, value.astype(var.dtype)) for var, value in writes.values()])
        return IncompatibleKeys(missing, unexpected)

    def _adapt(self, state: dict[str, Any], prefix: str) -> None:
        """Makes a state dict and this module fit, where that can be: names of older versions, or
        sizes that were not known yet.  prefix: of this module's keys, with its dot."""

    # --- modes and conversions --------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Set training mode (batch statistics, dropout) on this module and all below."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self) -> Module:
        """Set inference mode: `train(False)`."""
        return self.train(False)

    def apply(self, function: Callable[[Module], Any]) -> Module:
        """Call `function` on every module of the tree, children before their parent."""
        for module in self.children():
            module.apply(function)
        function(self)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Set `requires_grad` of every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set `.grad` of every parameter to None, or to zeros with set_to_none=False."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad = mo.zeros_like(parameter.grad)

    def to(self, *args: Any, dtype: Any = None, device: Any = None) -> Module:
        """Convert floating-point parameters and buffers to a dtype; "cpu" is the only device.

        The converted Vars are new objects: make the optimiser afterwards.
        """
        for argument in (*args, device):
            if argument is None or isinstance(argument, bool):
                continue
            if _is_device(argument):
                if str(argument) != "cpu":
                    raise ValueError(f"to({str(argument)!r}): the only device is 'cpu'")
            else:
                dtype = argument
        return self if dtype is None else self._convert(dtype)

    def _convert(self, dtype: Any) -> Module:
        converted: dict[int, tuple[mo.Var, mo.Var]] = {}
        for module in self.modules():
            for table in ("_parameters", "_buffers"):
                entries = module._entries(table)
                for name, var in entries.items():
                    if var is None or not var.dtype.is_float:
                        continue
                    if id(var) not in converted:
                        # The old Var is kept too, so that its id stays taken.
                        converted[id(var)] = (var, _cast(var, dtype))
                    entries[name] = converted[id(var)][1]
        return self

    def float(self) -> Module:
        """`to(mo.float32)`."""
        return self.to(mo.float32)

    def double(self) -> Module:
        """`to(mo.float64)`."""
        return self.to(mo.float64)

    def cpu(self) -> Module:
        """This module: all values live in the CPU's memory."""
        return self

    # --- printing ---------------------------------------------------------------------------------

    def summary(self, *inputs: Any) -> Any:
        """A table of the layers with their output shapes, parameters and flops.

        inputs: what `forward` takes; only shapes and dtypes matter.  Computes nothing.
        """
        from .summary import summary  # its rows are Modules

        return summary(self, *inputs)

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses, besides the submodules."""
        return ""

    def __repr__(self) -> str:
        lines = self.extra_repr().split("\n") if self.extra_repr() else []
        children = [
            f"({name}): {_indented(repr(module))}"
            for name, module in self._table("_modules").items()
        ]
        return _tree(type(self).__name__, lines, children)

    def _repr_html_(self) -> str:
        """In a notebook: a table of the layers and their parameters."""
        from .table import table  # loads when first used

        return table(self)


def _tree(title: str, lines: list[str], children: list[str]) -> str:
    if not children and len(lines) < 2:
        return f"{title}({''.join(lines)})"
    return "\n  ".join([f"{title}(", *lines, *children]) + "\n)"


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def _is_device(argument: Any) -> bool:
    return type(argument).__name__ == "device" or (
        isinstance(argument, str) and argument.split(":")[0] in ("cpu", "cuda", "mps", "xpu")
    )


def _cast(var: mo.Var, dtype: Any) -> mo.Var:
    value = var.detach().astype(dtype)
    if isinstance(var, Parameter):
        return Parameter(value, requires_grad=var.requires_grad)
    return value


def _as_var(value: Any) -> mo.Var:
    """A Var of a state dict's value; a torch tensor comes through its NumPy view."""
    if isinstance(value, mo.Var):
        return value.detach()
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return mo.array(value)


def _mismatch(
    name: str, strict: bool, missing: list[str], unexpected: list[str], misshapen: list[str]
) -> str:
    faults = {"missing": missing, "unexpected": unexpected} if strict else {}
    faults["misshapen"] = misshapen
    counts = ", ".join(f"{len(keys)} {kind}" for kind, keys in faults.items() if keys)
    details = [f"    {kind}: {'; '.join(keys)}" for kind, keys in faults.items() if keys]
    hint = "" if misshapen else "\n    strict=False loads the keys that match"
    return f"{name}.load_state_dict: {counts}; nothing was loaded\n" + "\n".join(details) + hint
