"""Another configuration for a running gateway: what can change does, the rest is named.

Law: everything is read, checked and tried before anything changes, so that a reload happens whole
or not at all. A plan changes between two batches: the core has sealed what came before it, every
batch is processed under the plan with which it was scanned, and the counts go over as in a restart.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from gateway.api import access
from gateway.api.access import Token
from gateway.config import SiteConfig, check_site
from gateway.config.marks import Place, finding_at
from gateway.config.rules import FindingRule
from gateway.contract.plan import Plan
from gateway.errors import Finding, InvalidConfigError, StartError, WeirError
from gateway.forward.signing import read_key
from gateway.otlp.decode import OpenBatch
from gateway.pipeline import Stages
from gateway.receive.identity import Credential, load_tokens
from gateway.receive.listening import Material, read_material
from gateway.rooms import Guard, Rooms, innermost

log = logging.getLogger(__name__)

# Reads the configuration as the start of the process did. Raises: InvalidConfigError.
Load = Callable[[], tuple[SiteConfig, Plan]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChange:
    """What another plan needs: stages without counts, and a batch that is scanned for them."""

    plan: Plan
    stages: Stages
    open_batch: OpenBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """A whole reload that was found good. `plan` is None when the plan is the same as before.

    `config` is what holds afterwards; `waiting` names the knobs that a restart would change.
    """

    config: SiteConfig
    waiting: tuple[str, ...]
    tokens: Mapping[bytes, Credential] | None
    api_tokens: Mapping[bytes, Token] | None
    material: Material | None
    plan: PlanChange | None


def prepare(rooms: Rooms, current: SiteConfig, load: Load) -> Reload:
    """Read everything again and try it; changes nothing. Any thread.

    Raises: InvalidConfigError, StartError, CorruptDataError.
    """
    wanted, plan = load()
    config, waiting = applicable(current, wanted)
    findings = check_site(config)
    if findings:
        raise InvalidConfigError(findings)
    tokens_file = config.receive.tokens_file
    return Reload(
        config=config,
        waiting=waiting,
        tokens=load_tokens(tokens_file) if tokens_file else None,
        api_tokens=access.load_tokens(config.api.tokens_file) if config.api.tokens_file else None,
        material=read_material(config.receive.tls),
        plan=None if plan.digest == rooms.plan.digest else _try(rooms, plan),
    )


def unusable_files(site: SiteConfig) -> list[Finding]:
    """Find what a start and a reload refuse of the files that a site file names.

    Files that do not exist are findings of the site file itself.
    """
    findings: list[Finding] = []
    for load, path in (
        (load_tokens, site.receive.tokens_file),
        (access.load_tokens, site.api.tokens_file),
    ):
        if path is not None and path.is_file():
            try:
                load(path)
            except InvalidConfigError as error:
                findings += error.findings
    for hook in site.retrain:
        if hook.key_file.is_file():
            try:
                read_key(hook.key_file)
            except InvalidConfigError as error:
                findings += error.findings
    tls = site.receive.tls
    named = [each for each in (tls.cert, tls.key, tls.client_ca) if each is not None]
    if all(each.is_file() for each in named):
        try:
            read_material(tls)
        except StartError as error:
            place = Place(file=str(tls.cert))
            advice = "write files in PEM format"
            findings.append(finding_at(place, FindingRule.TLS_PAIR, str(error), advice))
    return findings


def _try(rooms: Rooms, plan: Plan) -> PlanChange:
    """Build the stages of a plan, and let a twin of them take the counts as the core will."""
    with rooms.stages.lock:
        state = rooms.stages.measure.state()
    rooms.stages_of(plan).measure.restore(state)
    return PlanChange(plan=plan, stages=rooms.stages_of(plan), open_batch=OpenBatch(plan.slot_keys))


class Reloads:
    """Reload when asked, one reload after the other.

    `guard` runs work and hands what it raises to its second argument; `apply` takes all but the
    plan into use; `exchange` gives the group commit another batch and a word for its turn.
    """

    def __init__(
        self,
        rooms: Rooms,
        config: SiteConfig,
        load: Load,
        *,
        guard: Guard,
        apply: Callable[[Reload], None],
        exchange: Callable[[OpenBatch, Callable[[], None]], None],
    ) -> None:
        self._rooms = rooms
        self._config = config
        self._load = load
        self._guard = guard
        self._apply = apply
        self._exchange = exchange
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Ask for a reload; several questions at once have one answer."""
        self._asked.set()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self._reload()

    async def _reload(self) -> None:
        def work() -> Reload:
            return prepare(self._rooms, self._config, self._load)

        new = await asyncio.to_thread(self._guard, work, _refused)
        if new is None:
            return
        self._config = new.config
        self._apply(new)
        if new.plan is not None:
            await self._change_plan(new.plan)
        waiting = ", ".join(new.waiting) or "nothing"
        log.info(
            "reloaded plan=%s; waiting for a restart: %s", self._rooms.plan.digest[:12], waiting
        )

    async def _change_plan(self, change: PlanChange) -> None:
        """Change the plan behind the open group; requests go on into the next one."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        rooms = self._rooms

        def in_core() -> None:
            rooms.store.use_contracts([contract.model for contract in change.plan.contracts])
            rooms.stages.exchange(change.stages)
            loop.call_soon_threadsafe(changed.set)

        self._exchange(change.open_batch, lambda: rooms.core.between_batches(in_core))
        await changed.wait()


def _refused(error: Exception) -> None:
    """Say why nothing changed, in one line."""
    if isinstance(error, WeirError):
        why = "; ".join(str(error).splitlines())
    else:
        # Its text may quote a value; its type and place are enough.
        why = f"{type(error).__name__} at {innermost(error)}"
    log.error("reload refused, nothing changed error=%s", why)


def applicable(current: SiteConfig, wanted: SiteConfig) -> tuple[SiteConfig, tuple[str, ...]]:
    """Tell what of a wanted configuration can hold now, and which knobs wait for a restart."""
    receive = wanted.receive
    applied = current.receive.model_copy(
        update={
            "tokens_file": receive.tokens_file,
            "queue_max": receive.queue_max,
            "device": receive.device,
            "http": current.receive.http.model_copy(update={"body_max": receive.http.body_max}),
        }
    )
    if _kind_of_tls(current) == _kind_of_tls(wanted):
        applied = applied.model_copy(update={"tls": receive.tls})
    api = current.api
    if api.tokens_file is not None and wanted.api.tokens_file is not None:
        # Whether there are tokens at all decides who the API believes, which is fixed at the start.
        api = api.model_copy(update={"tokens_file": wanted.api.tokens_file})
    config = current.model_copy(
        update={
            "contracts": wanted.contracts,
            "sampling": wanted.sampling,
            "receive": applied,
            "api": api,
        }
    )
    return config, tuple(_differences(config, wanted))


def _kind_of_tls(config: SiteConfig) -> tuple[bool, bool]:
    """Listeners are made for plaintext, TLS or mTLS."""
    tls = config.receive.tls
    return tls.cert is not None, tls.client_ca is not None


def _differences(first: BaseModel, second: BaseModel, path: str = "") -> Iterator[str]:
    """Name the knobs that differ; a list is one knob."""
    for name in type(first).model_fields:
        one: Any = getattr(first, name)
        other: Any = getattr(second, name)
        if isinstance(one, BaseModel) and isinstance(other, BaseModel):
            yield from _differences(one, other, f"{path}{name}.")
        elif one != other:
            yield f"{path}{name}"
