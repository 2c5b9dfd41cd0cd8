"""Orders that are charged exactly once, although the program is killed in the middle. Run it: python examples/orders.py

    receive ── charge ── ship

receive   refuses orders without an amount
charge    asks a payment service over HTTP, with a key that is the same in every attempt of an order
ship      gives the order a tracking number, and counts it

Three processes take part. This one starts a payment service and a program that works on the orders, kills that
program twice with SIGKILL, which nothing can catch, and starts it again. The journal in a SQLite file knows what was
done. The service knows whom it has charged, so both can be compared at the end.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.request import Request, urlopen

from routilux import ErrorHandler, ErrorStrategy, Flow, Routine, Runtime, current, routine
from routilux.activation_policies import immediate_policy

ORDERS = 300
KILLS = (80, 190)  # the program is killed when the service has charged so many


# -- the flow ------------------------------------------------------------------------------------------------


class Receive(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("order")
        self.add_event("order")
        self.set_activation_policy(immediate_policy())
        self.set_error_handler(ErrorHandler(ErrorStrategy.STOP))

    def logic(self, slot_data, policy_message, state):
        [order] = slot_data["order"]
        if order["cents"] <= 0:
            raise ValueError(f"order {order['number']} has no amount")
        self.emit("order", **order)


class Charge(Routine):
    """The one step that does something outside. It can run again after a crash, and says so to the service."""

    def __init__(self):
        super().__init__()
        self.add_slot("order")
        self.add_event("paid")
        self.set_config(service="")
        self.set_activation_policy(immediate_policy())
        self.set_concurrency(8)  # the service takes its time, and takes several at once
        self.set_error_handler(
            ErrorHandler(ErrorStrategy.RETRY, max_retries=20, retry_delay=0.02, max_delay=0.5)
        )

    def logic(self, slot_data, policy_message, state):
        [order] = slot_data["order"]
        charge = ask(
            self.get_config("service"),
            {"customer": order["customer"], "cents": order["cents"]},
            key=current().idempotency_key("charge"),
        )
        self.emit("paid", **order, charge=charge["id"])


@routine
def ship(number, customer, cents, charge):
    """State and what is emitted take effect together, once, with the end of the order."""
    context = current()
    context.routine_state.add("orders")
    context.routine_state.add("cents", cents)
    context.state.shared_log.append(number)
    return {"number": number, "tracking": f"T{number:06}", "charge": charge}


def build_flow(service: str) -> Flow:
    flow = Flow("orders")
    for routine_id, step in {"receive": Receive(), "charge": Charge(), "ship": ship()}.items():
        flow.add_routine(step, routine_id)
    flow.connect("receive", "order", "charge", "order")
    flow.connect("charge", "paid", "ship", "input")
    flow.routines["charge"].set_config(service=service)
    return flow


def orders() -> list[dict]:
    return [
        {"number": n, "customer": f"customer-{n % 40}", "cents": 100 + 7 * n} for n in range(1, ORDERS + 1)
    ]


def work(store: str, service: str) -> None:
    """Post every order and work until all are done. It does not know whether it was killed before."""
    flow = build_flow(service)
    with Runtime(store=store) as runtime:
        worker = runtime.exec(flow, worker_id="orders")  # started, or opened as it was left
        for order in orders():  # those that were accepted before are not accepted again
            runtime.post(flow, "receive", "order", order, idempotency_key=f"order-{order['number']}")
        runtime.wait_until_all_jobs_finished()
        print(json.dumps({**worker.get_routine_state("ship"), "shipped": list(worker.shared_log)}))


# -- the payment service ---------------------------------------------------------------------------------------


class Service(ThreadingHTTPServer):
    """Charges a key once, tells the same again to whoever asks again, and fails now and then."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.lock = Lock()
        self.charges: dict[str, dict] = {}
        self.requests = self.repeated = self.failed = 0

    def charge(self, key: str, order: dict) -> dict | None:
        with self.lock:
            self.requests += 1
            if self.requests % 17 == 0:
                self.failed += 1
                return None
            if key in self.charges:
                self.repeated += 1
            return self.charges.setdefault(key, {"id": f"ch_{len(self.charges) + 1}", **order})

    def handle_error(self, request, client_address):
        """Whoever asked may have been killed before the answer came."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def report(self) -> dict:
        with self.lock:
            return {
                "charged": len(self.charges),
                "cents": sum(charge["cents"] for charge in self.charges.values()),
                "requests": self.requests,
                "repeated": self.repeated,
                "failed": self.failed,
            }


class Answer(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        charge = self.server.charge(self.headers["Idempotency-Key"], order)
        self.answer(503 if charge is None else 200, charge)

    def do_GET(self):
        self.answer(200, self.server.report())

    def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def ask(service: str, document: dict | None = None, *, key: str = "") -> dict:
    """POST a document, or GET the report. Raises URLError where the service does not answer, or fails."""
    data = None if document is None else json.dumps(document).encode()
    request = Request(service, data, {"Idempotency-Key": key} if key else {})
    with urlopen(request, timeout=10) as answer:
        return json.load(answer)


def serve() -> None:
    with Service() as service:
        print(f"http://127.0.0.1:{service.server_port}/", flush=True)
        service.serve_forever()


# -- the demonstration -------------------------------------------------------------------------------------------


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="routilux-orders-") as folder, started("serve") as server:
        service = server.stdout.readline().strip()
        try:
            return demonstrate(f"sqlite:///{Path(folder).absolute() / 'orders.db'}", service)
        finally:
            server.kill()


def demonstrate(store: str, service: str) -> int:
    for charged in KILLS:
        with started("work", store, service) as program:
            while program.poll() is None and ask(service)["charged"] < charged:
                pass  # each question takes as long as an answer over HTTP
            program.send_signal(signal.SIGKILL)
        print(f"Killed       with {ask(service)['charged']} of {ORDERS} orders charged")
    with started("work", store, service) as program:
        done, _ = program.communicate()
    shipped, charged = json.loads(done), ask(service)
    amount = sum(order["cents"] for order in orders())
    print(f"Shipped      {shipped['orders']} orders, {shipped['cents'] / 100:,.2f} in all")
    print(f"Charged      {charged['charged']} times, {charged['cents'] / 100:,.2f} in all")
    print(
        f"Asked        {charged['requests']} times: {charged['failed']} failed, {charged['repeated']} repeated a key"
    )
    once = sorted(shipped["shipped"]) == [order["number"] for order in orders()]
    right = once and shipped["cents"] == charged["cents"] == amount and charged["charged"] == ORDERS
    print("Every order was charged once and shipped once" if right else "Something is wrong")
    return 0 if right else 1


def started(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            sys.exit(main())
        case ["serve"]:
            serve()
        case ["work", store, service]:
            work(store, service)
        case _:
            sys.exit("usage: python examples/orders.py [work STORE SERVICE | serve]")
