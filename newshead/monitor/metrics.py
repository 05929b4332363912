"""The price monitor's figures for Prometheus, and `/healthz`, on a port of the loopback address.

Whoever asks is answered in a thread of its own, which only reads: the figures
are the monitor's own and are looked up when they are asked for. Only what
cannot be read later is noted where it happens, in two histograms.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

from newshead import __version__
from newshead.core.parts import PartState, Told, failing
from newshead.listening import GuardedServer
from newshead.monitor.figures import Figures
from newshead.monitor.parts import parts
from newshead.tws.link import ConnectionState

logger = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
CYCLE_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
TRIGGER_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Metrics:
    """What a monitor tells Prometheus. `start` and `close` block; the rest never waits."""

    def __init__(
        self, figures: Callable[[], Figures], others: Callable[[], Sequence[Told]]
    ) -> None:
        """
        Parameters
        ----------
        figures
            Gives the monitor's figures of the moment. Called on any thread.
        others
            Gives how the parts fare that the monitor knows from the database only. Likewise.
        """
        self._figures = figures
        self._others = others
        # The time at which a series began is of no use to anybody here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        registry.register(_Collector(figures, self._parts))
        ProcessCollector(registry=registry)
        self.cycle_duration_seconds = Histogram(
            "newshead_cycle_duration_seconds",
            "Duration of the cycles that had something to do.",
            buckets=CYCLE_BUCKETS_S,
            registry=registry,
        )
        self.trigger_duration_seconds = Histogram(
            "newshead_trigger_to_request_duration_seconds",
            "From a trigger file's modification time to the request for its subscription.",
            buckets=TRIGGER_BUCKETS_S,
            registry=registry,
        )
        self._metrics_app = make_wsgi_app(registry)
        self._server: _Server | None = None

    def start(self, port: int) -> None:
        """Serve from now on; a port that cannot be had is one line in the log."""
        try:
            self._server = make_server(HOST, port, self._answer, _Server, _Handler)
        except OSError as problem:
            logger.error(
                "No metrics: port %d cannot be used (%s); set METRICS_PORT to a free one.",
                port,
                problem.strerror,
            )
            return
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        logger.info("Metrics at http://%s:%d/metrics, health at /healthz.", HOST, port)

    def close(self) -> None:
        """Serve no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _parts(self) -> list[Told]:
        now = datetime.now(UTC)
        return [*(part.told(now) for part in parts(self._figures())), *self._others()]

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                answer: Iterable[bytes] = self._metrics_app(environ, start_response)
                return answer
            case "/healthz":
                problems = failing(self._parts(), datetime.now(UTC))
                status = "503 Service Unavailable" if problems else "200 OK"
                text = "; ".join(part.problem for part in problems) or "ok"
            case _:
                status, text = "404 Not Found", "/metrics or /healthz"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]


class _Collector(Collector):
    """The monitor's figures at the moment they are asked for."""

    def __init__(self, figures: Callable[[], Figures], parts: Callable[[], Sequence[Told]]) -> None:
        self._figures = figures
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        for name, text, value in (
            ("ticks", "Trades received from IBKR.", figures.ticks),
            ("rows", "Price rows made.", figures.rows),
            ("alerts", "Alerts raised.", figures.alerts),
            ("cycles", "Cycles run.", figures.cycles),
            ("reconnects", "Lost connections made anew.", figures.reconnects),
        ):
            yield CounterMetricFamily(f"newshead_{name}", text, value)
        if figures.follow_up is not None:
            outcomes = CounterMetricFamily(
                "newshead_follow_up_requests",
                "Requests for past bars that are over, by what came of them.",
                labels=["outcome"],
            )
            for outcome in ("answered", "refused", "missing"):
                outcomes.add_metric([outcome], getattr(figures.follow_up, outcome))
            yield outcomes
        for name, text, value in (
            ("active_tickers", "Tickers tracked now.", figures.active_tickers),
            ("kept_rows", "Rows that ClickHouse does not take now.", figures.kept_rows),
        ):
            yield GaugeMetricFamily(f"newshead_{name}", text, value)
        if figures.tick_age_s is not None:
            yield GaugeMetricFamily(
                "newshead_tick_age_seconds",
                "Time since the newest data from IBKR.",
                figures.tick_age_s,
            )
        yield StateSetMetricFamily(
            "newshead_connection",
            "How far the connection to IBKR has come.",
            {state.value: state is figures.state for state in ConnectionState},
        )
        yield InfoMetricFamily("newshead_build", "What runs.", {"version": __version__})
        yield from _part_metrics(self._parts(), datetime.now(UTC))


def _part_metrics(found: Sequence[Told], now: datetime) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "newshead_part_state", "1 for the state that a part is in.", labels=["part", "state"]
    )
    ages = GaugeMetricFamily(
        "newshead_part_success_age_seconds",
        "Time since a part last did what it is for.",
        labels=["part"],
    )
    for part in found:
        for state in PartState:
            states.add_metric([part.name, state.value], part.state is state)
        if part.success is not None:
            ages.add_metric([part.name], max(0.0, (now - part.success).total_seconds()))
    yield states
    yield ages


class _Server(GuardedServer, WSGIServer):
    name = "metrics port"


class _Handler(WSGIRequestHandler):
    # Whoever asks and then says nothing is left.
    timeout = 10

    def log_message(self, *_: object) -> None:
        """No line per request on stderr."""
