"""The price monitor's figures for Prometheus, and `/healthz`, on a port of the loopback address.

Whoever asks is answered in a thread of its own, which only reads: the figures
are the monitor's own and are looked up when they are asked for. Only what
cannot be read later is noted where it happens, in two histograms.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Histogram, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

from newshead.listening import GuardedServer
from newshead.monitor.figures import Figures
from newshead.monitor.parts import PartState, parts
from newshead.tws.link import ConnectionState

logger = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
# A monitor whose last cycle is older does not work.
MAX_CYCLE_AGE_S: Final = 10.0
CYCLE_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
TRIGGER_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Metrics:
    """What a monitor tells Prometheus. `start` and `close` block; the rest never waits."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        """
        Parameters
        ----------
        figures
            Gives the monitor's figures of the moment. Called on any thread.
        """
        self._figures = figures
        registry = CollectorRegistry()
        registry.register(_Collector(figures))
        self.cycle_seconds = Histogram(
            "newshead_cycle_seconds",
            "Duration of the cycles that had something to do.",
            buckets=CYCLE_BUCKETS_S,
            registry=registry,
        )
        self.trigger_latency_seconds = Histogram(
            "newshead_trigger_latency_seconds",
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

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                answer: Iterable[bytes] = self._metrics_app(environ, start_response)
                return answer
            case "/healthz":
                problems = ill_health(self._figures())
                status = "503 Service Unavailable" if problems else "200 OK"
                text = "; ".join(problems) or "ok"
            case _:
                status, text = "404 Not Found", "/metrics or /healthz"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]


def ill_health(figures: Figures) -> list[str]:
    """Return why the monitor cannot be relied on; empty while it can."""
    problems = []
    if figures.state is not ConnectionState.READY:
        problems.append(f"the connection to IBKR is {figures.state.value}")
    if figures.cycle_age_s >= MAX_CYCLE_AGE_S:
        problems.append(
            f"the last cycle ended {figures.cycle_age_s:.0f} s ago"
            if figures.cycles
            else "no cycle has ended yet"
        )
    if figures.kept_rows:
        problems.append(f"{figures.kept_rows} rows are kept because ClickHouse does not take them")
    if figures.unjudged:
        problems.append("alerts cannot be judged because ClickHouse does not answer")
    if figures.connected:
        problems += [
            f"{part.name}: {part.reason}" for part in parts(figures) if part.state is PartState.LOST
        ]
    return problems


class _Collector(Collector):
    """The monitor's figures at the moment they are asked for."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

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


class _Server(GuardedServer, WSGIServer):
    name = "metrics port"


class _Handler(WSGIRequestHandler):
    # Whoever asks and then says nothing is left.
    timeout = 10

    def log_message(self, *_: object) -> None:
        """No line per request on stderr."""
