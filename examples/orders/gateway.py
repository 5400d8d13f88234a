"""A payment gateway for the demo: a process of its own that charges a card once for each idempotency key.

A decision is committed to the ledger *before* it is answered, and the answer takes a while, as it does over a real
network: a caller that dies in between has been charged and does not know it. Asking again with the same key gives
the stored decision.

`POST /charges` with the header `Idempotency-Key` asks for a charge, `GET /status` tells what is going on, and
`POST /release` ends the holding back of answers (see `--hold-after`).

How a card behaves stands at the end of its token: `tok_visa_19ac33b0` is charged, `tok_visa_19ac33b0-expired_card`
is declined with that code, `tok_visa_19ac33b0-busy2` gets a 503 twice and is charged the third time.
"""

import argparse
import hashlib
import json
import sys
import threading
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

from ledger import Decision, Ledger

Answer = tuple[int, dict[str, Any]]
"""A status and a body."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a caller asks for."""

    order_id: str
    amount_cents: int
    currency: str
    card_token: str


@dataclass(frozen=True, slots=True)
class Card:
    """How a card behaves, read from its token, so that every demo goes the same way."""

    busy: int
    decline_code: str | None
    latency: float  # seconds

    @classmethod
    def of(cls, token: str) -> "Card":
        behaviour = token.partition("-")[2]
        busy = int(behaviour.removeprefix("busy")) if behaviour.startswith("busy") else 0
        decline_code = behaviour if behaviour and not busy else None
        return cls(busy, decline_code, latency=(5 + zlib.crc32(token.encode()) % 36) / 1000)


class Gateway:
    """Decides about charges and knows which of its answers are still on their way."""

    def __init__(self, ledger: Ledger, hold_after: int | None = None) -> None:
        self._ledger = ledger
        self._hold_after = hold_after
        self._lock = threading.Lock()  # guards the four below
        self._key_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._charges = 0
        self._in_flight: set[int] = set()
        self._unanswered: set[int] = set()  # charged, and the caller does not know it yet
        self._answers_flow = threading.Event()
        self._answers_flow.set()

    def arrive(self, key: str, charge: Charge, client: str) -> int:
        request_id = self._ledger.arrive(key, charge.order_id, client)
        with self._lock:
            self._in_flight.add(request_id)
        return request_id

    def charge(self, request_id: int, key: str, charge: Charge) -> Answer:
        card = Card.of(charge.card_token)
        with self._lock:
            key_lock = self._key_locks[key]
        with key_lock:  # whoever asks with a key that is being decided on waits for that decision
            known = self._ledger.decision(key)
            if known:
                return self._answer_again(request_id, known, charge)
            if self._ledger.times_unavailable(key) < card.busy:
                self._ledger.settle(request_id, "unavailable")
                return 503, {"error": "too busy, please try again"}
            time.sleep(card.latency / 2)
            decision = self._decide(request_id, key, charge, card)
        time.sleep(card.latency / 2)
        self._answers_flow.wait()
        return _answer(decision)

    def answered(self, request_id: int) -> None:
        with self._lock:
            self._in_flight.discard(request_id)
            self._unanswered.discard(request_id)

    def release(self) -> None:
        self._answers_flow.set()

    def status(self) -> dict[str, int | bool]:
        with self._lock:
            return {
                "in_flight": len(self._in_flight),
                "unanswered": len(self._unanswered),
                # Once true, the charge that made it true is unanswered, and stays so until the release.
                "holding": not self._answers_flow.is_set(),
            }

    def _answer_again(self, request_id: int, known: Decision, charge: Charge) -> Answer:
        asked = (charge.order_id, charge.amount_cents, charge.currency)
        if asked != (known.order_id, known.amount_cents, known.currency):
            self._ledger.settle(request_id, "refused")
            return 422, {"error": "this idempotency key belongs to another charge"}
        self._ledger.settle(request_id, "repeated")
        return _answer(known)

    def _decide(self, request_id: int, key: str, charge: Charge, card: Card) -> Decision:
        charge_id = None if card.decline_code else "ch_" + hashlib.sha256(key.encode()).hexdigest()[:16]
        decision = Decision(charge.order_id, charge.amount_cents, charge.currency, charge_id, card.decline_code)
        self._ledger.decide(request_id, key, decision)
        if charge_id:
            self._charged(request_id)
        return decision

    def _charged(self, request_id: int) -> None:
        with self._lock:
            self._charges += 1
            self._unanswered.add(request_id)
            # From here on the answers wait, so whoever kills the caller now is sure to cut off a charge that was
            # made and not heard of. Otherwise the kill would need luck: an answer is only milliseconds late.
            if self._charges == self._hold_after:
                self._answers_flow.clear()


def _answer(decision: Decision) -> Answer:
    if decision.charge_id:
        return 200, {"charge_id": decision.charge_id}
    return 402, {"error": "card declined", "code": decision.decline_code}


class Handler(BaseHTTPRequestHandler):
    """The gateway over HTTP."""

    wbufsize = -1  # head and body of an answer leave in one piece
    disable_nagle_algorithm = True

    def __init__(self, gateway: Gateway, *connection: Any) -> None:
        self._gateway = gateway
        super().__init__(*connection)

    def do_GET(self) -> None:
        if self.path == "/status":
            self._reply(200, self._gateway.status())
        else:
            self._reply(404, {"error": f"nothing at {self.path}"})

    def do_POST(self) -> None:
        if self.path == "/charges":
            self._charge()
        elif self.path == "/release":
            self._gateway.release()
            self._reply(200, {})
        else:
            self._reply(404, {"error": f"nothing at {self.path}"})

    def _charge(self) -> None:
        key = self.headers.get("Idempotency-Key")
        if not key:
            return self._reply(400, {"error": "the header Idempotency-Key is missing"})
        try:
            charge = Charge(**json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0)))))
        except (ValueError, TypeError) as error:
            return self._reply(400, {"error": str(error)})
        request_id = self._gateway.arrive(key, charge, self.headers.get("User-Agent", ""))
        try:
            self._reply(*self._gateway.charge(request_id, key, charge))
        finally:
            self._gateway.answered(request_id)

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: it is all in the ledger."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks up the name of this machine: that takes seconds where DNS is broken.
        TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        # A caller that is gone before its answer is what this gateway is here to show; the decision is committed.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description="A payment gateway that charges once for each idempotency key.")
    parser.add_argument("ledger", type=Path, help="a new file")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--hold-after", type=int, help="from this charge on keep the answers back until POST /release")
    options = parser.parse_args()
    gateway = Gateway(Ledger(options.ledger), options.hold_after)
    with Server(("127.0.0.1", options.port), partial(Handler, gateway)) as server:
        print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
