"""A chat endpoint on loopback that fails as it is told to, and else answers as the symbolic teacher does.

In a test: `with FaultServer(answer, script=["429", "html"]) as server: ... server.base_url`. As a teacher for a run:

    python tests/engines/fault_server.py --problems 320 --faults 429 500 html wrong --share 0.3
    OPENAI_API_KEY=any-word python run_paper.py tiny --teacher.kind chat --teacher.base-url http://127.0.0.1:8000/v1
"""

import argparse
import asyncio
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from reference.connect import load_prompts
from reference.engines.benchmarks import read_problems
from reference.interfaces import UnusableAnswer
from reference.offline import word_problems
from reference.offline.symbolic_teacher import SymbolicTeacher
from reference.paper.prompts import PLACEHOLDER, Prompts
from reference.records import Problem

WRONG = "I think it is 7.\n#### 123456789"
Chooser = Callable[[bytes, int], str]  # the body of a request, and how often it came before -> a fault, or "" for none


@dataclass(frozen=True)
class Reply:
    """What goes back. `cut`: only so many bytes of the body, then the connection ends; `seconds`: not before that.

    In `pieces`, each with its part of these seconds before it, a reply is late although it never stands still.
    """

    body: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    cut: int | None = None
    seconds: float = 0.0
    pieces: int = 1


@dataclass(frozen=True)
class Request:
    """What came in, and what was done about it."""

    body: bytes
    headers: Mapping[str, str]
    time: float
    fault: str

    @property
    def prompt(self) -> str:
        return json.loads(self.body)["messages"][-1]["content"]


def completion(content: str | None, finish_reason: str = "stop", asked: int = 10) -> dict:
    """A chat completion; a token is four characters here."""
    written = len(content or "") // 4
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written},
    }


def error(status: int, message: str, code: str = "", **headers: str) -> Reply:
    """An error as OpenAI words it; `retry_after="1"` becomes a header."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": code}})
    names = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Reply(body, status, (("Content-Type", "application/json"), *names))


def other_fields(right: Reply) -> str:
    """The right diagnosis with the last of its keys spelt otherwise; in place of any other answer a wrong one."""
    answer = json.loads(right.body)["choices"][0]["message"]["content"]
    if not answer.startswith("{"):
        return WRONG
    *others, (key, value) = json.loads(answer).items()
    return json.dumps({**dict(others), f"the_{key}": value})


def faulty(fault: str, right: Reply, request: Request) -> Reply:
    """The reply to a request that is to get this fault in place of the right reply."""
    half = right.body[: len(right.body) // 2]
    name, _, detail = fault.partition(":")
    late = float(detail or 30) if name in ("hang", "drip") else 0.0
    authorization = request.headers.get("authorization", "")
    echoed = f"who is {authorization}? {'x' * 30}"
    replies = {
        "429": error(429, "slow down", retry_after=detail) if detail else error(429, "slow down"),
        "500": error(500, f"out of order {echoed}"),
        "503": Reply("<h1>Bad gateway</h1>", 503, (("Content-Type", "text/html"),)),
        "hang": replace(right, seconds=late),
        "drip": replace(right, seconds=late, pieces=10),
        "close": replace(right, cut=0),
        "cut": replace(right, cut=len(right.body) // 2),
        "half": replace(right, body=half),
        "html": Reply("<html>Welcome</html>", 200, (("Content-Type", "text/html"),)),
        "error200": replace(right, body=json.dumps({"error": {"message": "busy"}})),
        "keys": replace(right, body=json.dumps({"answers": [1]})),
        "wrong": replace(right, body=json.dumps(completion(WRONG))),
        "fields": replace(right, body=json.dumps(completion(other_fields(right)))),
        "empty": replace(right, body=json.dumps(completion(""))),
        "none": replace(right, body=json.dumps(completion(None))),
        "length": replace(right, body=json.dumps(completion("So we begin with", "length"))),
        "filter": replace(right, body=json.dumps(completion("", "content_filter"))),
        "inspection": error(400, "inappropriate content", "data_inspection_failed"),
        "echo": replace(right, body=json.dumps(completion(f"0.5 {echoed}"))),
        "escaped": replace(right, body=json.dumps(completion(echoed)).replace("-", "\\u002d")),
        "context": error(
            400, "This model's maximum context length is 2048 tokens. However, your prompt contains more."
        ),
        "400": error(400, f"cannot read that {echoed}"),
        "401": error(401, f"{echoed} {authorization[7:] * 20}", "invalid_api_key"),
        "page": Reply(f"<html>{authorization[7:] * 20}</html>"),
        "404": error(404, "no such model"),
    }
    return replies[name]


def scripted(script: Sequence[str]) -> Chooser:
    """Each body in turn gets the faults of the script, `` for none, and after its end no more."""
    return lambda body, before: script[before] if before < len(script) else ""


def drawn(faults: Sequence[str], share: float, seed: int, most: int) -> Chooser:
    """Faults for a share of the requests, chosen by body and turn alone; none once a body came `most` times."""

    def choose(body: bytes, before: int) -> str:
        draw = random.Random(f"{seed}:{before}:{body.decode()}")
        return draw.choice(faults) if before < most and draw.random() < share else ""

    return choose


class FaultServer:
    """POST /v1/chat/completions in a thread of its own while the `with` lasts; GET /counts tells what came in.

    `answer` gets the messages of a call. `formats` are the response formats that are taken; others get a 400.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Mapping[str, str]]], str],
        choose: Chooser = scripted(()),  # noqa: B008  # an empty script has nothing to share
        seconds: float = 0.0,
        formats: Sequence[str] = ("json_schema", "json_object"),
        port: int = 0,
    ):
        self.answer, self.choose, self.seconds, self.formats, self.port = answer, choose, seconds, formats, port
        self.requests: list[Request] = []
        self.counts: Counter[bytes] = Counter()
        self.in_flight = self.most_in_flight = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "FaultServer":
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self.start())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def start(self) -> None:
        """Listen, on a free port if none is given."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: requests until the other side, or a reply that is cut, ends it."""
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the other side is gone, or `__exit__` has come while a reply hung
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply; whether the connection goes on."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            reply = self._reply(first, headers, body)
            content = reply.body.encode()[: reply.cut]
            head = [f"HTTP/1.1 {reply.status} -", *(f"{name}: {value}" for name, value in reply.headers)]
            head = "\r\n".join([*head, f"Content-Length: {len(reply.body.encode())}", "", ""]).encode()
            whole = content if reply.cut == 0 else head + content
            size = -(-len(whole) // reply.pieces) or 1
            for start in range(0, len(whole), size):
                if reply.seconds:
                    await asyncio.sleep(reply.seconds / reply.pieces)
                writer.write(whole[start : start + size])
                await writer.drain()
        finally:
            self.in_flight -= 1
        return reply.cut is None

    def _reply(self, first: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if first.startswith("GET /counts "):
            return Reply(json.dumps({"requests": len(self.requests), "most": max(self.counts.values(), default=0)}))
        if not first.startswith("POST /v1/chat/completions "):
            return error(404, f"there is nothing at {first!r}")
        fault = self.choose(body, self.counts[body])
        self.counts[body] += 1
        request = Request(body, headers, time.monotonic(), fault)
        self.requests.append(request)
        asked = json.loads(body)
        if "response_format" in asked and asked["response_format"]["type"] not in self.formats:
            return error(400, f"response_format {asked['response_format']['type']} is not supported")
        right = Reply(json.dumps(completion(self.answer(asked["messages"]))), seconds=self.seconds)
        return faulty(fault, right, request) if fault else right


class SymbolicAnswers:
    """Answers a call's messages as the symbolic teacher answers the verb that they ask, with what they ask it about."""

    def __init__(self, problems: Sequence[Problem], prompts: Prompts = Prompts(), seed: int = 0):
        self._teacher = SymbolicTeacher(seed)
        self._by_question = {problem.question: problem for problem in problems}
        recycling = prompts.recycling_user.replace("{optional_reference_block}", "")
        self._templates = {
            "importance": _template(prompts.importance_user),
            "jumpiness": _template(prompts.jumpiness_user),
            "diagnose": _template(recycling),
            "expand": _template(prompts.expand),
            "localize": _template(prompts.localize),
            "compress": _template(prompts.compress),
            "solve": _template(prompts.solve),
        }

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Raises ValueError where no verb asks like this, or about no known problem."""
        asked = messages[-1]["content"]
        for verb, template in self._templates.items():
            match = template.fullmatch(asked)
            if match:
                try:
                    return str(self._said(verb, match.groupdict()))
                except UnusableAnswer as reason:
                    return f"I have nothing to say: {reason}"
        raise ValueError(f"no verb asks like this: {asked[:80]!r}")

    def _said(self, verb: str, values: Mapping[str, str]) -> str | float:
        teacher = self._teacher
        if verb == "compress":
            return teacher.compress(values["curr_step"])
        problem = self._by_question[values["question"]]
        if verb == "solve":
            return teacher.solve(problem)
        if verb == "importance":
            return teacher.importance(problem, values["full_cot"], values["cot_without_step"], values["step_to_score"])
        if verb == "diagnose":
            return teacher.diagnose(problem, values["student_response"])
        context, step = values["prev_context"], values["curr_step"]
        if verb == "jumpiness":
            return teacher.jumpiness(problem, context, step)
        return teacher.expand(problem, context, step) if verb == "expand" else teacher.localize(problem, context, step)


def _template(text: str) -> re.Pattern[str]:
    """A filled template, read backwards: each placeholder is a group of its name."""
    literals, names = PLACEHOLDER.split(text)[::2], PLACEHOLDER.split(text)[1::2]
    groups = [f"(?P<{name}>.*?)" for name in names]
    return re.compile("".join(a + b for a, b in zip(map(re.escape, literals), [*groups, ""], strict=True)), re.DOTALL)


def _problems(given: str) -> list[Problem]:
    if given.isdigit():
        return word_problems.generate("train", int(given), 0)
    return read_problems("train", given, "train")


def _constant(text: str, messages: Sequence[Mapping[str, str]]) -> str:
    return text


def _problems(given: str) -> list[Problem]:
    if given.isdigit():
        return word_problems.generate("train", int(given), 0)
    return read_problems("train", given, "train")


def _constant(text: str, messages: Sequence[Mapping[str, str]]) -> str:
    return text


async def _serve_forever(server: FaultServer) -> None:
    await server.start()
    print(server.base_url, flush=True)
    await server._server.serve_forever()


def main() -> None:
    """Serve until killed; the address is the first line that is printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--problems", default="320", help="a JSONL file in GSM8K's format, or how many offline problems"
    )
    parser.add_argument("--prompts", default="", help="a folder of templates, as --data.prompts")
    parser.add_argument("--seed", type=int, default=1111, help="the run's seed, which the symbolic teacher has too")
    parser.add_argument("--constant", help="answer every call with this text")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long each answer takes")
    parser.add_argument("--faults", nargs="*", default=[], help="names of `faulty`, such as 429:1 for a Retry-After")
    parser.add_argument("--share", type=float, default=0.2, help="of the requests that get one of the faults")
    parser.add_argument("--most", type=int, default=2, help="a call that came so often gets no fault any more")
    options = parser.parse_args()
    if options.constant is None:
        answer = SymbolicAnswers(_problems(options.problems), load_prompts(options.prompts), options.seed)
    else:
        answer = partial(_constant, options.constant)
    choose = drawn(options.faults, options.share, options.seed, options.most) if options.faults else scripted(())
    asyncio.run(_serve_forever(FaultServer(answer, choose, options.seconds, port=options.port)))


if __name__ == "__main__":
    main()
