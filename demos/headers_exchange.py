"""A headers exchange routes by the headers of a message: all headers of a binding have to match, or any one of them."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoEnvironment
from dmq_core.demo.exchange_context import ExchangeContext
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import Binding, Exchange, HeadersProducer, Queue


class HeadersDemo(ExchangeContext):
    """A headers exchange for reports, and four queues bound with headers."""

    queues = ("both", "either", "recent", "signed")

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.reports = self.unique_name("reports")
        self.both = self.unique_name("both")
        self.either = self.unique_name("either")
        self.recent = self.unique_name("recent")
        self.signed = self.unique_name("signed")
        self.outcome_of_text = ""

    @property
    def format(self) -> str:
        return self.answer.split()[-1]

    @property
    def kind(self) -> str:
        return self.answer.split()[0]

    def focus_on(self) -> Focus:
        return Focus(exchange=self.reports, queue=self.either, tail=self.reports)

    def bind(self) -> None:
        daily_pdf = {"format": "pdf", "kind": "daily"}
        self.manager.declare(
            Exchange(self.reports, "headers"),
            Queue(self.both, "quorum"),
            Queue(self.either, "quorum"),
            Queue(self.recent, "quorum"),
            Queue(self.signed, "quorum"),
            Binding(self.reports, self.both, arguments={"x-match": "all", **daily_pdf}),
            Binding(self.reports, self.either, arguments={"x-match": "any", **daily_pdf}),
            Binding(self.reports, self.recent, arguments={"x-match": "all", "year": 2026}),
            Binding(self.reports, self.signed, arguments={"x-match": "all", "author": None}),
        )

    def publish_daily_pdf(self) -> None:
        with HeadersProducer(self.manager, self.reports) as producer:
            handle = producer.publish({"format": "pdf", "kind": "daily"}, "all is well")
            self.outcome = handle.result(10).outcome

    def both_and_either_got_one(self) -> CheckResult:
        return self.got("both", "either")

    def publish_without_kind(self) -> None:
        with HeadersProducer(self.manager, self.reports) as producer:
            handle = producer.publish({"format": "pdf"}, "no kind header")
            self.outcome = handle.result(10).outcome

    def only_either_got_one(self) -> CheckResult:
        return self.got("either")

    def publish_years(self) -> None:
        with HeadersProducer(self.manager, self.reports) as producer:
            number = producer.publish({"year": 2026}, "the year is a number")
            text = producer.publish({"year": "2026"}, "the year is a string")
            self.outcome = number.result(10).outcome
            self.outcome_of_text = text.result(10).outcome

    def only_the_number_matches(self) -> CheckResult:
        seen = self.got("recent")
        passed = seen.passed and (self.outcome, self.outcome_of_text) == ("confirmed", "returned")
        return CheckResult(passed, f"the number: {seen.text}; the string: {self.outcome_of_text}")

    def publish_signed(self) -> None:
        with HeadersProducer(self.manager, self.reports) as producer:
            handle = producer.publish({"author": "Ada"}, "signed by Ada")
            self.outcome = handle.result(10).outcome

    def only_signed_got_one(self) -> CheckResult:
        return self.got("signed")

    def publish_own(self) -> None:
        with HeadersProducer(self.manager, self.reports) as producer:
            handle = producer.publish({"kind": self.kind, "format": self.format}, "your own report")
            self.outcome = handle.result(10).outcome

    def was_routed_by_its_headers(self) -> CheckResult:
        matches = (self.kind == "daily") + (self.format == "pdf")
        seen = self.got(*(["either"] if matches else []), *(["both"] if matches == 2 else []))
        passed = seen.passed and self.outcome == ("confirmed" if matches else "returned")
        return CheckResult(passed, f"a {self.answer}: {seen.text}")

    def delete_either(self) -> None:
        self.delete(self.either)


DEMO = Demo(
    title="Headers exchange",
    summary=(
        "Bindings name headers and their values; x-match says whether a message has to match all of them or any one."
    ),
    context=HeadersDemo,
    steps=(
        DemoStep(
            title="Four queues, bound with headers",
            explanation=(
                "A binding to a headers exchange names headers and values, and in x-match whether all of them or any "
                "one has to match. A value of None only requires that the header is present."
            ),
            terms=("exchange", "headers exchange", "binding"),
            run=HeadersDemo.bind,
            command="dmq exchange list\ndmq queue show {both}",
            claim="Four queues exist: both, either, recent and signed.",
            check=HeadersDemo.queues_are_there,
            sabotage=HeadersDemo.delete_either,
        ),
        DemoStep(
            title="A message that matches all and any",
            explanation="The message has both headers with those values. If all match, any one matches too.",
            terms=("publisher confirm",),
            run=HeadersDemo.publish_daily_pdf,
            command="dmq publish --exchange {reports} --header format=pdf --header kind=daily 'all is well'",
            claim="The queues both and either got one copy each, the other two got none.",
            check=HeadersDemo.both_and_either_got_one,
            sabotage=HeadersDemo.delete_either,
        ),
        DemoStep(
            title="A header is missing",
            explanation=("A missing header does not match. Headers that a binding does not name are ignored."),
            run=HeadersDemo.publish_without_kind,
            command="dmq publish --exchange {reports} --header format=pdf 'no kind header'",
            claim="The queue either got a copy, the queue both did not.",
            check=HeadersDemo.only_either_got_one,
            sabotage=HeadersDemo.delete_either,
        ),
        DemoStep(
            title="2026 is not '2026'",
            explanation=(
                "Values are compared with their type. The queue recent is bound with the number 2026. The string "
                "'2026' is another value, and a frequent reason why a message is not routed."
            ),
            terms=("mandatory",),
            run=HeadersDemo.publish_years,
            command="dmq publish --exchange {reports} --header year=2026 'the year is a number'\n"
            "dmq publish --exchange {reports} --header 'year=\"2026\"' 'the year is a string'",
            claim="Recent got the message whose year is a number. The other matches no binding and is returned.",
            check=HeadersDemo.only_the_number_matches,
            sabotage=HeadersDemo.delete_either,
        ),
        DemoStep(
            title="Any value matches",
            explanation="The queue signed is bound with 'author' and no value.",
            run=HeadersDemo.publish_signed,
            command="dmq publish --exchange {reports} --header author=Ada 'signed by Ada'",
            claim="Only signed got a copy.",
            check=HeadersDemo.only_signed_got_one,
            sabotage=HeadersDemo.delete_either,
        ),
        DemoStep(
            title="Your own headers",
            explanation=(
                "Which queues will get it? The queue both needs a daily pdf; for either, one of the two is enough."
            ),
            ask=DemoQuestion(
                "Which report shall be published?",
                usual="weekly pdf",
                choices=("daily pdf", "daily text", "weekly pdf", "weekly text"),
            ),
            run=HeadersDemo.publish_own,
            command="dmq publish --exchange {reports} --header kind={kind} --header format={format} 'your own report'",
            claim=(
                "A daily pdf is routed to both and either, a daily text or weekly pdf to either; a weekly text is "
                "returned."
            ),
            check=HeadersDemo.was_routed_by_its_headers,
            sabotage=HeadersDemo.delete_either,
        ),
    ),
    seen=(
        "Bindings matched headers by name, value and type. With x-match all, one missing header was enough to get "
        "nothing; with any, one matching header was enough to get a copy."
    ),
    when=(
        "Messages that are routed by several properties without an order among them: format, kind, year. A topic "
        "exchange is easier to read; use headers where a routing key of words is not enough."
    ),
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import HeadersConsumer, HeadersProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = HeadersConsumer(manager, "reports", {"format": "pdf", "kind": "daily"}, "any", "either")
    consumer.declare_queue()

    def handle(message, headers):
        print(headers["format"], message)
        consumer.stop_consuming()
        return True

    consumer.start_consuming(handle)
    with HeadersProducer(manager, "reports") as producer:
        print(producer.publish({"format": "pdf"}, "all is well").result().outcome)
    consumer.wait(10)
""",
    to_try="Bind a queue with the number 1 and publish a header with the value true. Is that the same to RabbitMQ?",
    takes_s=3,
    repair=HeadersDemo.bind,
    focus=HeadersDemo.focus_on,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
