"""A headers exchange looks at the headers of a message: all that a binding names have to fit, or any one of them."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoEnvironment
from dmq_core.demo.exchange_context import ExchangeContext
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import Binding, Exchange, HeadersProducer, Queue


class Reports(ExchangeContext):
    """Reports that are sorted by what their headers say."""

    queues = ("both", "either", "recent", "signed")

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.reports = self.named("reports")
        self.both = self.named("both")
        self.either = self.named("either")
        self.recent = self.named("recent")
        self.signed = self.named("signed")
        self.outcome_of_text = ""

    @property
    def format(self) -> str:
        return self.answer.split()[-1]

    @property
    def kind(self) -> str:
        return self.answer.split()[0]

    def look(self) -> Focus:
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
            self.outcome = handle.wait(10).outcome

    def both_and_either_got_it(self) -> CheckResult:
        return self.got("both", "either")

    def publish_without_kind(self) -> None:
        with HeadersProducer(self.manager, self.reports) as producer:
            handle = producer.publish({"format": "pdf"}, "nobody said how often I come")
            self.outcome = handle.wait(10).outcome

    def either_alone_got_it(self) -> CheckResult:
        return self.got("either")

    def publish_years(self) -> None:
        with HeadersProducer(self.manager, self.reports) as producer:
            number = producer.publish({"year": 2026}, "my year is a number")
            text = producer.publish({"year": "2026"}, "my year is a text")
            self.outcome = number.wait(10).outcome
            self.outcome_of_text = text.wait(10).outcome

    def number_alone_fits(self) -> CheckResult:
        seen = self.got("recent")
        passed = seen.passed and (self.outcome, self.outcome_of_text) == ("confirmed", "returned")
        return CheckResult(passed, f"the number: {seen.text}; the text: {self.outcome_of_text}")

    def publish_signed(self) -> None:
        with HeadersProducer(self.manager, self.reports) as producer:
            handle = producer.publish({"author": "Ada"}, "I have an author")
            self.outcome = handle.wait(10).outcome

    def signed_alone_got_it(self) -> CheckResult:
        return self.got("signed")

    def publish_own(self) -> None:
        with HeadersProducer(self.manager, self.reports) as producer:
            handle = producer.publish({"kind": self.kind, "format": self.format}, "your own report")
            self.outcome = handle.wait(10).outcome

    def went_as_the_headers_say(self) -> CheckResult:
        hits = (self.kind == "daily") + (self.format == "pdf")
        seen = self.got(*(["either"] if hits else []), *(["both"] if hits == 2 else []))
        passed = seen.passed and self.outcome == ("confirmed" if hits else "returned")
        return CheckResult(passed, f"a {self.answer}: {seen.text}")

    def lose_either(self) -> None:
        self.delete(self.either)


DEMO = Demo(
    title="Headers exchange",
    summary="Bindings name headers and their values; a message has to fit all of them, or any one, as they say.",
    context=Reports,
    steps=(
        DemoStep(
            title="Four queues, bound by headers",
            explanation=(
                "A binding to a headers exchange names headers and values, and in x-match whether all of them have to "
                "fit or any one will do. A value of None asks only that the header is there."
            ),
            terms=("exchange", "headers exchange", "binding"),
            run=Reports.bind,
            command="dmq exchange list\ndmq queue show {both}",
            claim="Four queues are there: both, either, recent and signed.",
            check=Reports.queues_are_there,
            sabotage=Reports.lose_either,
        ),
        DemoStep(
            title="A message that fits all and any",
            explanation="The message has both headers, with the very values. Where all fit, any one fits too.",
            terms=("publisher confirm",),
            run=Reports.publish_daily_pdf,
            command="dmq publish --exchange {reports} --header format=pdf --header kind=daily 'all is well'",
            claim="The queues both and either got one copy each, the other two none.",
            check=Reports.both_and_either_got_it,
            sabotage=Reports.lose_either,
        ),
        DemoStep(
            title="A header is missing",
            explanation=(
                "A header that is not there fits no binding that asks for it. Headers that no binding asks for do no "
                "harm."
            ),
            run=Reports.publish_without_kind,
            command="dmq publish --exchange {reports} --header format=pdf 'nobody said how often I come'",
            claim="The queue either got a copy, and both did not.",
            check=Reports.either_alone_got_it,
            sabotage=Reports.lose_either,
        ),
        DemoStep(
            title="2026 is not '2026'",
            explanation=(
                "Values are compared with their type. The queue recent is bound by the number 2026. A text of the same "
                "look is another value, and a frequent reason why nothing comes."
            ),
            terms=("mandatory",),
            run=Reports.publish_years,
            command="dmq publish --exchange {reports} --header year=2026 'my year is a number'\n"
            "dmq publish --exchange {reports} --header 'year=\"2026\"' 'my year is a text'",
            claim="Recent got the one whose year is a number. The other fits no queue and comes back.",
            check=Reports.number_alone_fits,
            sabotage=Reports.lose_either,
        ),
        DemoStep(
            title="Any value will do",
            explanation="The queue signed is bound by 'author' with no value.",
            run=Reports.publish_signed,
            command="dmq publish --exchange {reports} --header author=Ada 'I have an author'",
            claim="Signed alone got a copy.",
            check=Reports.signed_alone_got_it,
            sabotage=Reports.lose_either,
        ),
        DemoStep(
            title="Your own headers",
            explanation=(
                "Which queues will get it? The queue both wants a daily pdf, and either is content with a half of it."
            ),
            ask=DemoQuestion(
                "Which report shall be sent?",
                usual="weekly pdf",
                choices=("daily pdf", "daily text", "weekly pdf", "weekly text"),
            ),
            run=Reports.publish_own,
            command="dmq publish --exchange {reports} --header kind={kind} --header format={format} 'your own report'",
            claim="A daily pdf goes to both and either, a half of it to either, and a weekly text comes back.",
            check=Reports.went_as_the_headers_say,
            sabotage=Reports.lose_either,
        ),
    ),
    seen="Bindings asked for headers by name, value and type. With all, one that was missing was enough to get "
    "nothing; with any, one that fitted was enough to get a copy.",
    when="Messages that are sorted by several things at once which have no order among them: format, kind, year. A "
    "topic exchange is easier to read; take headers where a key of words does not do.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import HeadersConsumer, HeadersProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = HeadersConsumer("reports", {"format": "pdf", "kind": "daily"}, "any", "either", manager)
    consumer.declare_queue()

    def handle(message, headers):
        print(headers["format"], message)
        consumer.stop_consuming()
        return True

    consumer.start_consuming(handle)
    with HeadersProducer(manager, "reports") as producer:
        print(producer.publish({"format": "pdf"}, "all is well").wait().outcome)
    consumer.wait(10)
""",
    to_try="Bind a queue by the number 1 and send it a header that is true. Is that the same to RabbitMQ?",
    takes_s=3,
    repair=Reports.bind,
    focus=Reports.look,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
