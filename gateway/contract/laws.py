"""Laws between the keys of a contract: what one line says must agree with what another one says.

Law: pure; today's date is an argument. Every violation is noted at the line of the key that a
person would change. The default is to refuse: what could leave the site by mistake is a finding.
"""

from collections.abc import Mapping
from datetime import date
from typing import Final

from gateway.config.keep import KeepRule, parse_rule
from gateway.config.marks import Document, Path
from gateway.config.rules import FindingRule
from gateway.config.units import format_duration, is_finite
from gateway.config.validate import Checked, dotted
from gateway.contract.form import REQUIRED, ContractForm, SignalForm, SloForm
from gateway.contract.names import (
    foreign_character,
    is_identifying,
    is_key,
    is_metric_name,
    is_placeholder,
    is_reserved,
    is_signal_name,
    name_character,
    text_fault,
)
from gateway.contract.rule import bind_rule
from gateway.contract.schema import (
    NUMERIC,
    STREAM_KEYS,
    Action,
    Indicator,
    Role,
    Signal,
    SignalType,
)
from gateway.contract.slo import budget_of, objective_min, overeager, undetectable

# Above this a double no longer holds every whole number, and a range is no bound.
RANGE_MAX: Final = float(1 << 53)
TYPES_OF_ROLE: Final[dict[Role, frozenset[SignalType]]] = {
    Role.CONFIDENCE: frozenset({SignalType.DOUBLE}),
    Role.PREDICTION: frozenset(SignalType) - {SignalType.STRING},
    Role.FEATURE: frozenset(SignalType) - {SignalType.STRING},
    Role.OUTCOME: frozenset({SignalType.BOOL, SignalType.ENUM}),
    Role.IDENTIFIER: frozenset({SignalType.STRING, SignalType.INT}),
    Role.TEXT: frozenset({SignalType.STRING}),
}
SINGLE_ROLES: Final = (Role.CONFIDENCE, Role.OUTCOME)
RESERVED_SIGNALS: Final = frozenset({"error", "duration"})
_STRENGTH: Final = {Action.PASS: 0, Action.TOKEN: 1, Action.DROP: 2}
_NO_TOKEN: Final = frozenset({SignalType.DOUBLE, SignalType.BOOL})


def check_laws(
    checked: Checked[ContractForm], document: Document, today: date | None
) -> tuple[KeepRule, ...]:
    """Check all laws between the keys that are sound; answer the bound keep rules."""
    form = checked.value
    if form is None:
        return ()
    _check_required(checked, form, document)
    _check_head(form, document, today)
    _check_keys(form, document)
    _check_texts(form, document)
    seen: dict[str, str] = {}
    for name, signal in form.signals.items():
        at: Path = ("signals", name)
        _check_signal_name(name, signal, seen, document)
        _check_type(at, signal, checked, document)
        _check_signal_privacy(at, signal, checked, document)
    _check_single_roles(form, document)
    _check_resource(form, document)
    _check_metrics(form, document)
    _check_slos(checked, form, document)
    return _bound_rules(checked, form, document)


def signals_of(form: ContractForm) -> Mapping[str, Signal]:
    """Convert the declared signals."""
    return {
        name: Signal(
            name=name,
            attribute=each.attribute,
            type=SignalType(each.type),
            role=Role(each.role),
            range=each.range,
            values=each.values,
            export=each.export,
            site=each.site,
        )
        for name, each in form.signals.items()
    }


def _check_required(checked: Checked[ContractForm], form: ContractForm, document: Document) -> None:
    for name in REQUIRED:
        if not getattr(form, name) and checked.is_sound(name):
            knob = ContractForm.model_fields[name]
            at: Path = (name,) if (name,) in document.values else ()
            state = "empty" if at else "missing"
            message, advice = f"{name} is {state}", knob.description or ""
            document.add(at, FindingRule.MISSING, message, advice, of_key=True)


def _check_head(form: ContractForm, document: Document, today: date | None) -> None:
    for name, text in (("owner", form.owner), ("purpose", form.purpose)):
        if text and is_placeholder(text):
            advice = ContractForm.model_fields[name].description or ""
            document.add((name,), FindingRule.PLACEHOLDER, f"{name} is {text!r}", advice)
    if form.expires is not None and today is not None and form.expires < today:
        document.add(
            ("expires",),
            FindingRule.EXPIRED,
            f"the contract expired on {form.expires}, and today is {today}",
            "read it again, and write the last day on which it shall hold",
        )


def _check_keys(form: ContractForm, document: Document) -> None:
    keys: list[tuple[Path, str, bool]] = [(("match", key), key, True) for key in form.match]
    keys += [(("resource", key), key, True) for key in form.resource]
    keys += [
        (("signals", name, "attribute"), signal.attribute, False)
        for name, signal in form.signals.items()
    ]
    for at, key, of_key in keys:
        foreign = foreign_character(key)
        if foreign is not None:
            position, character = foreign
            message = f"{key!r} has {name_character(character)} as character {position}"
            advice = "write attribute keys in plain ASCII: look-alikes match nothing"
            document.add(at, FindingRule.KEY_SCRIPT, message, advice, of_key=of_key)
        elif not is_key(key):
            message = f"{key!r} is no attribute key"
            advice = "name one attribute in full, such as edgeai.inference.class; no wildcards"
            document.add(at, FindingRule.INVALID_VALUE, message, advice, of_key=of_key)
        elif is_reserved(key):
            message = f"{key!r} lies in a namespace that devices may not use"
            document.add(
                at, FindingRule.RESERVED_KEY, message, "choose another name", of_key=of_key
            )


def _check_texts(form: ContractForm, document: Document) -> None:
    texts: list[tuple[Path, str]] = [(("match", key), text) for key, text in form.match.items()]
    texts += [(("span_names", index), text) for index, text in enumerate(form.span_names)]
    texts += [(("event_names", index), text) for index, text in enumerate(form.event_names)]
    for name, signal in form.signals.items():
        texts += [
            (("signals", name, "values", index), text) for index, text in enumerate(signal.values)
        ]
    seen: set[tuple[Path, str]] = set()
    for at, text in texts:
        fault = text_fault(text)
        if fault is not None:
            message = f"{dotted(at)}: {text!a} cannot be used: {fault}"
            document.add(at, FindingRule.MIXED_SCRIPT, message, "type the text again")
        if at[0] != "match" and (at[:-1], text) in seen:
            message = f"{dotted(at[:-1])} has {text!r} twice"
            document.add(at, FindingRule.DUPLICATE_NAME, message, "keep one of them")
        seen.add((at[:-1], text))


def _check_signal_name(
    name: str, signal: SignalForm, seen: dict[str, str], document: Document
) -> None:
    at: Path = ("signals", name)
    if not is_signal_name(name) or name in RESERVED_SIGNALS:
        message = f"{name!r} cannot be the name of a signal"
        advice = "use letters, digits and _, but not error or duration"
        document.add(at, FindingRule.INVALID_VALUE, message, advice, of_key=True)
    twin = seen.setdefault(signal.attribute, name)
    if twin != name:
        message = f"{signal.attribute!r} is the attribute of signal {twin!r} too"
        document.add((*at, "attribute"), FindingRule.DUPLICATE_NAME, message, "keep one signal")


def _check_type(
    at: Path, signal: SignalForm, checked: Checked[ContractForm], document: Document
) -> None:
    kind, role = SignalType(signal.type), Role(signal.role)
    if kind not in TYPES_OF_ROLE[role]:
        fitting = ", ".join(sorted(TYPES_OF_ROLE[role]))
        message = f"the type {kind} cannot have the role {role}"
        advice = f"the role {role} fits {fitting}"
        document.add((*at, "role"), FindingRule.SIGNAL_ROLE, message, advice)
    if kind is SignalType.ENUM and not signal.values and checked.is_sound(*at, "values"):
        message, advice = "an enum needs its values", "write values: [first, second]"
        document.add((*at, "values"), FindingRule.SIGNAL_VALUES, message, advice)
    if kind is not SignalType.ENUM and signal.values:
        message, advice = (
            f"the type {kind} has no list of values",
            "write type: enum, or delete values",
        )
        document.add((*at, "values"), FindingRule.SIGNAL_VALUES, message, advice, of_key=True)
    if signal.range is not None:
        _check_range((*at, "range"), kind, role, signal.range, document)


def _check_range(
    at: Path, kind: SignalType, role: Role, bounds: tuple[float, float], document: Document
) -> None:
    low, high = bounds
    advice = "write the lowest and the highest possible value, such as [0, 1]"
    message = ""
    if kind not in NUMERIC:
        message, advice = f"the type {kind} has no range", "delete range"
    elif not (is_finite(low) and is_finite(high) and low < high):
        message = f"[{low:g}, {high:g}] is no range"
    elif max(abs(low), abs(high)) > RANGE_MAX:
        message = f"[{low:g}, {high:g}] bounds nothing"
    elif kind is SignalType.INT and not (low.is_integer() and high.is_integer()):
        message, advice = f"[{low:g}, {high:g}] is no range of an int", "write whole numbers"
    elif role is Role.CONFIDENCE and not (low >= 0 and high <= 1):
        message = f"a confidence is a probability and cannot lie in [{low:g}, {high:g}]"
        advice = "write [0, 1], or the role feature for a score"
    if message:
        document.add(at, FindingRule.SIGNAL_RANGE, message, advice)


def _check_signal_privacy(
    at: Path, signal: SignalForm, checked: Checked[ContractForm], document: Document
) -> None:
    kind, role = SignalType(signal.type), Role(signal.role)
    here: Path = (*at, "export")
    if signal.export is Action.PASS:
        if role is Role.IDENTIFIER or is_identifying(signal.attribute):
            message = f"{signal.attribute} identifies somebody and would leave as it is"
            document.add(here, FindingRule.IDENTIFIER_PASSED, message, "write token or drop")
        elif kind is SignalType.STRING:
            message = f"{signal.attribute} is free text and would leave as it is"
            advice = "write drop or token, or declare it as an enum with its values"
            document.add(here, FindingRule.TEXT_PASSED, message, advice)
        elif kind in NUMERIC and signal.range is None and checked.is_sound(*at, "range"):
            message = f"{signal.attribute} is a number without a range and would leave as it is"
            advice = "write range: [lowest, highest]; an account number fits into an int"
            document.add(here, FindingRule.UNBOUNDED_NUMBER, message, advice)
    for side, action in (("export", signal.export), ("site", signal.site)):
        if action is Action.TOKEN and kind in _NO_TOKEN:
            message = f"a token of type {kind} joins nothing, or tells the value by its frequency"
            document.add((*at, side), FindingRule.TOKEN_TYPE, message, "write drop")
    _check_order(at, signal.export, signal.site, document)


def _check_order(at: Path, export: Action, site: Action, document: Document) -> None:
    if _STRENGTH[export] < _STRENGTH[site]:
        message = f"{dotted(at)} would leave with {export} and is only stored with {site}"
        advice = f"write export: {site}, or site: {export}"
        document.add((*at, "export"), FindingRule.LOOSER_EXPORT, message, advice)


def _check_single_roles(form: ContractForm, document: Document) -> None:
    for role in SINGLE_ROLES:
        names = [name for name, signal in form.signals.items() if signal.role == role]
        for name in names[1:]:
            message = f"{names[0]!r} has the role {role} already"
            advice = "write the role feature for one of them"
            document.add(("signals", name, "role"), FindingRule.SIGNAL_ROLE, message, advice)


def _check_resource(form: ContractForm, document: Document) -> None:
    for key, rule in form.resource.items():
        at: Path = ("resource", key)
        if rule.export is Action.PASS and is_identifying(key):
            message = f"{key} identifies somebody and would leave as it is"
            document.add(
                (*at, "export"), FindingRule.IDENTIFIER_PASSED, message, "write token or drop"
            )
        _check_order(at, rule.export, rule.site, document)


def _check_metrics(form: ContractForm, document: Document) -> None:
    for name, rule in form.metrics.items():
        at: Path = ("metrics", name)
        if not is_metric_name(name):
            message = f"{name!r} is no name of a metric"
            advice = "begin with a letter, then letters, digits and _.-/, at most 255"
            document.add(at, FindingRule.INVALID_VALUE, message, advice, of_key=True)
        if not rule.unit.isascii() or not rule.unit.isprintable():
            message = f"{rule.unit!a} is no unit"
            document.add((*at, "unit"), FindingRule.INVALID_VALUE, message, "write it in UCUM")
    leaving = {key for key, rule in form.resource.items() if rule.export is not Action.DROP}
    if form.metrics and not leaving & STREAM_KEYS:
        message = "the metrics of several devices would leave as one and the same series"
        advice = "add to resource: device.id: {export: token}"
        document.add(("metrics",), FindingRule.METRIC_STREAM, message, advice, of_key=True)


def _check_slos(checked: Checked[ContractForm], form: ContractForm, document: Document) -> None:
    names: dict[str, int] = {}
    subjects: dict[tuple[str, float | None], int] = {}
    for index, slo in enumerate(form.slos):
        at: Path = ("slos", index)
        twin = names.setdefault(slo.name, index)
        if twin != index:
            message = f"the name {slo.name!r} is that of slos[{twin}] too"
            document.add((*at, "name"), FindingRule.DUPLICATE_NAME, message, "write another name")
        twin = subjects.setdefault((slo.indicator, slo.threshold), index)
        if twin != index:
            message = f"slos[{twin}] counts the same events already"
            document.add(at, FindingRule.DUPLICATE_NAME, message, "keep one of them")
        _check_slo(at, slo, checked, document)


def _check_slo(at: Path, slo: SloForm, checked: Checked[ContractForm], document: Document) -> None:
    indicator = Indicator(slo.indicator)
    has_none = slo.threshold is None and checked.is_sound(*at, "threshold")
    if indicator is Indicator.LATENCY and has_none:
        message, advice = "a latency objective needs a threshold", "write threshold: 100ms"
        document.add(at, FindingRule.SLO_THRESHOLD, message, advice)
    if indicator is Indicator.SUCCESS and slo.threshold is not None:
        message, advice = "a success objective has no threshold", "delete it, or write latency"
        document.add((*at, "threshold"), FindingRule.SLO_THRESHOLD, message, advice, of_key=True)
    eager = overeager(slo.objective, slo.window)
    if eager is not None and checked.is_sound(*at, "window"):
        message = (
            f"over {format_duration(slo.window)} the {format_duration(eager.long_s)} alert "
            "would fire while the objective is kept"
        )
        document.add((*at, "window"), FindingRule.SLO_WINDOW, message, "write 7d, 28d or 30d")
    window = undetectable(indicator, slo.window, slo.objective)
    if window is not None:
        needed = window.factor * budget_of(slo.objective)
        least = objective_min(indicator, slo.window)
        document.add(
            (*at, "objective"),
            FindingRule.SLO_UNDETECTABLE,
            f"at {slo.objective:g} the {format_duration(window.long_s)} alert would need "
            f"{needed:.0%} bad events and could never fire",
            f"write an objective above {least:.4f}",
        )


def _bound_rules(
    checked: Checked[ContractForm], form: ContractForm, document: Document
) -> tuple[KeepRule, ...]:
    signals = signals_of(form)
    written = document.data.get("signals") if isinstance(document.data, dict) else None
    names = set(written) if isinstance(written, dict) else set()
    bound: list[KeepRule] = []
    for index, text in enumerate(form.sampling.keep):
        at: Path = ("sampling", "keep", index)
        try:
            rule = parse_rule(text)
            if rule.subject in names - set(signals):
                continue  # the signal itself has a finding
            bound.append(bind_rule(rule, signals))
        except ValueError as error:
            message = f"{dotted(at)}: {text!r} is no rule of this contract"
            document.add(at, FindingRule.KEEP_RULE, message, str(error))
    return tuple(bound)
