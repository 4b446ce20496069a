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
from gateway.config.units import is_finite
from gateway.config.validate import Checked, dotted, nearest
from gateway.contract.form import REQUIRED, ContractForm, SignalForm
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
from gateway.contract.objectives import check_objectives, written_in
from gateway.contract.rule import bind_rule
from gateway.contract.schema import (
    NUMERIC,
    STREAM_KEYS,
    Action,
    Role,
    Signal,
    SignalType,
)

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
# What a label can be equal to.
LABELLED: Final = frozenset({SignalType.ENUM, SignalType.INT, SignalType.BOOL})
# As which all values of a feature outside the closed set are counted.
OTHER_FEATURE: Final = "other"
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
    _check_labels(form, document)
    _check_cost(checked, form, document)
    check_objectives(written_in(checked, form, document), form.labels)
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
    if form.cost is not None and form.cost.feature is not None:
        keys.append((("cost", "feature"), form.cost.feature, False))
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
    features = form.cost.features if form.cost is not None else ()
    texts += [(("cost", "features", index), text) for index, text in enumerate(features)]
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


def _check_labels(form: ContractForm, document: Document) -> None:
    if form.labels is None:
        return
    at: Path = ("labels", "signal")
    signal = form.signals.get(form.labels.signal)
    if signal is None:
        written = document.data.get("signals") if isinstance(document.data, dict) else None
        if isinstance(written, dict) and form.labels.signal in written:
            return  # the signal itself has a finding
        message = f"no signal has the name {form.labels.signal!r}"
        predictions = tuple(
            name for name, each in form.signals.items() if Role(each.role) is Role.PREDICTION
        )
        advice = nearest(form.labels.signal, predictions, what="predictions are")
        if not predictions:
            advice = "declare the signal that holds the prediction"
        document.add(at, FindingRule.LABEL_SIGNAL, message, advice)
    elif Role(signal.role) is not Role.PREDICTION:
        message = f"the signal {form.labels.signal!r} has the role {signal.role}"
        advice = "name the signal with the role prediction"
        document.add(at, FindingRule.LABEL_SIGNAL, message, advice)
    elif SignalType(signal.type) not in LABELLED:
        message = f"the signal {form.labels.signal!r} has the type {signal.type}"
        advice = f"a label is equal to or not: name a signal of {', '.join(sorted(LABELLED))}"
        document.add(at, FindingRule.LABEL_SIGNAL, message, advice)


def _check_cost(checked: Checked[ContractForm], form: ContractForm, document: Document) -> None:
    cost = form.cost
    if cost is None:
        return
    at: Path = ("cost", "features")
    if cost.feature is not None and not cost.features and checked.is_sound(*at):
        message = "cost.feature has no closed set of values"
        advice = "write features: [first, second]"
        document.add(("cost", "feature"), FindingRule.COST_FEATURE, message, advice)
    if cost.features and cost.feature is None and checked.is_sound("cost", "feature"):
        message = "cost.features are values of no attribute"
        advice = "write feature: app.feature, the attribute that has them"
        document.add(at, FindingRule.COST_FEATURE, message, advice, of_key=True)
    if OTHER_FEATURE in cost.features:
        index = cost.features.index(OTHER_FEATURE)
        message = f"{OTHER_FEATURE!r} is what every value outside the set is counted as"
        document.add((*at, index), FindingRule.COST_FEATURE, message, "write another name")


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
