"""What the device has answered, kept through restarts: a command asked again is answered alike.

Law: an answer is on disk before it is sent. The number of answers is bounded; the oldest go first.
"""

from pathlib import Path
from typing import Any, Final

from collectors.device.files import read_json, write_json
from collectors.device.manifest import Answer, Part

ANSWERS_MAX: Final = 64
FILE_NAME: Final = "answers.json"


class Memory:
    """Answers by request id, oldest first."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        stored = read_json(self._path)
        self._answers: dict[str, Answer] = (
            {key: _load(value) for key, value in stored.items()} if isinstance(stored, dict) else {}
        )

    def get(self, request_id: str) -> Answer | None:
        """Look up an answer; None when this request is new or was released."""
        return self._answers.get(request_id)

    def answers(self) -> dict[str, Answer]:
        """Copy all answers, oldest first."""
        return dict(self._answers)

    def put(self, request_id: str, answer: Answer) -> None:
        """Keep an answer; returns when it is on disk."""
        answers = {**self._answers, request_id: answer}
        while len(answers) > ANSWERS_MAX:
            del answers[next(iter(answers))]
        self._replace(answers)

    def drop(self, request_id: str) -> None:
        """Forget a request that is final; unknown ones are ignored."""
        if request_id in self._answers:
            self._replace({k: v for k, v in self._answers.items() if k != request_id})

    def _replace(self, answers: dict[str, Answer]) -> None:
        write_json(self._path, {key: _dump(value) for key, value in answers.items()})
        self._answers = answers


def _dump(answer: Answer) -> Any:
    parts = [[part.trace_id.hex(), part.bytes, list(part.sequences)] for part in answer.parts]
    return [answer.refusal, answer.manifest, answer.chunk_bytes, parts]


def _load(value: Any) -> Answer:
    refusal, manifest, chunk_bytes, parts = value
    return Answer(
        refusal=refusal,
        manifest=manifest,
        chunk_bytes=chunk_bytes,
        parts=tuple(
            Part(trace_id=bytes.fromhex(trace_id), bytes=size, sequences=tuple(sequences))
            for trace_id, size, sequences in parts
        ),
    )
